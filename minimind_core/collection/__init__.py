"""Web pages and files to fact rows.

A new kind of page is a parser in sites.py; what its fields are called stands in fields.toml.
"""
