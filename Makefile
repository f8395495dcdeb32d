PY ?= python3
.PHONY: help setup lab report test smoke lint
help setup lab report test smoke lint:
	@$(PY) go.py $@
