"""The verb that serves other programs."""

from __future__ import annotations

import argparse

from minimind_core.cli.show import free_port
from minimind_core.config import Workbook
from minimind_core.errors import WorkbookError
from minimind_core.training.run_files import adapter_file


def serve(workbook: Workbook, arguments: argparse.Namespace) -> int:
    """Serve OpenAI's chat interface until Ctrl-C."""
    adapter_file(workbook, arguments.run)  # a missing run is named before the server starts
    try:
        import uvicorn

        from minimind_core.ui.server import create_app
    except ModuleNotFoundError as error:
        raise WorkbookError(
            "服务需要 starlette 和 uvicorn。请先运行 pip install starlette uvicorn。"
        ) from error
    if free_port(arguments.port) != arguments.port:
        raise WorkbookError(f"端口 {arguments.port} 正被别的程序使用。请用 --port 换一个。")
    print(f"接口地址：http://{arguments.host}:{arguments.port}/v1（Ctrl-C 结束）", flush=True)
    app = create_app(workbook, arguments.run, arguments.api_key)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
    return 0
