"""The product in a real browser: every notebook in JupyterLab, the class show as a page (Voilà), and the
Streamlit page.
"""

import re
import runpy
import shutil
import sys

import nbformat
import pytest
from conftest import PROJECT, load_script

from minimind_core.config import load_workbook
from minimind_core.reporting.browser import BROWSER_HELP, browser_path, font_environment, launch, local_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(browser_path() is None, reason=BROWSER_HELP),
]
TASKS = runpy.run_path(str(PROJECT / "go.py"))["TASKS"]
SHOTS = PROJECT / "runs" / "browser_pictures"
NOTEBOOKS = sorted(path.name for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
READY = """async () => {
  const session = window.jupyterapp.shell.currentWidget.sessionContext;
  await session.ready;
  const kernel = session.session.kernel;
  await kernel.info;
  while (kernel.connectionStatus !== 'connected' || kernel.status !== 'idle') await new Promise(r => setTimeout(r, 50));
  await kernel.requestExecute({code: 'None', silent: true}).done;  // a kernel that says it is idle may not answer yet
}"""
RUN_ALL = """async () => {
  await window.jupyterapp.commands.execute('notebook:run-all-cells');
  const cells = window.jupyterapp.shell.currentWidget.content.model.cells, bad = [];
  for (let i = 0; i < cells.length; i++) {
    const cell = cells.get(i);
    if (cell.type !== 'code' || !cell.sharedModel.getSource().trim()) continue;
    if (cell.executionCount == null) bad.push(`cell ${i} did not run`);
    for (let j = 0; j < cell.outputs.length; j++)
      if (cell.outputs.get(j).type === 'error') bad.push(`cell ${i}: ` + JSON.stringify(cell.outputs.get(j).toJSON()).slice(0, 400));
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A project folder of its own in the smoke profile, with the real base and the notebooks to be opened."""
    folder = load_script("run_notebooks").make_scratch(tmp_path_factory.mktemp("lab") / "project")
    text = (folder / "workbook.toml").read_text(encoding="utf-8")
    (folder / "workbook.toml").write_text(
        re.sub(r'(?m)^profile = "\w+"', 'profile = "smoke"', text), encoding="utf-8"
    )
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        source = (PROJECT / "notebooks" / name).read_text(encoding="utf-8")
        (folder / "notebooks" / name).write_text(
            source.replace('PROFILE = \\"default\\"', 'PROFILE = \\"smoke\\"'), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def lab(scratch, tmp_path_factory):
    """JupyterLab as `go.py lab` starts it, with no settings of the user's."""
    own = tmp_path_factory.mktemp("jupyter")
    folders = {"CONFIG_DIR": "config", "RUNTIME_DIR": "runtime", "DATA_DIR": "data"}
    environment = {f"JUPYTER_{name}": str(own / folder) for name, folder in folders.items()}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "spaces"),
        "IPYTHONDIR": str(own / "ipython"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", "--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={scratch}", "--LabApp.expose_app_in_browser=True",
        *(part for part in TASKS["lab"][2][0] if "app_settings_dir" in part),
    ]  # fmt: skip
    with local_server(command, scratch, own / "lab.log", environment) as (address, _):
        yield address


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium, with the workbook's Chinese font."""
    with launch() as browser:
        yield browser


@pytest.fixture
def page(chromium, request):
    """A page that writes down outside requests and console errors; a picture is kept when the test fails."""
    context = chromium.new_context(
        viewport=getattr(request, "param", {"width": 1280, "height": 900}), locale="zh-CN"
    )
    page = context.new_page()
    page.outside, page.complaints = [], []
    local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(local) else page.outside.append(r.url))
    page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
    page.on("dialog", lambda d: d.accept())
    yield page
    if getattr(request.node, "failed", False):
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{re.sub(r'[^a-zA-Z0-9_]+', '_', request.node.name)}.png")
    assert page.outside == [], "the page asked another host"
    assert page.complaints == []
    context.close()


def open_notebook(page, lab, name):
    page.goto(f"{lab}/lab/tree/notebooks/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.evaluate(READY)


def ask(page, *questions):
    """Type questions into the panel and send each with Enter, without waiting for the answer before."""
    box = page.get_by_placeholder("请输入问题…").last
    for question in questions:
        box.click()
        page.keyboard.insert_text(question)
        page.keyboard.press("Enter")
        page.wait_for_function("box => box.value === ''", arg=box.element_handle(), timeout=60_000)
    for question in questions:  # none is lost
        page.get_by_text(f"问： {question}").last.wait_for(timeout=60_000)
    page.get_by_text("正在回答…").last.wait_for(state="detached", timeout=60_000)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_runs_in_jupyterlab(lab, page, name):
    page.set_default_timeout(300_000)
    open_notebook(page, lab, name)
    assert page.evaluate(RUN_ALL) == []
    if name[:2] in ("06", "07"):
        ask(page, "你叫什么名字呀？", "那是谁做的你？")
    if name.startswith("07"):
        page.get_by_text("依据：").last.wait_for(timeout=60_000)
        page.get_by_role("button", name="部分对").click()
        page.get_by_text("已记录：部分对").wait_for(timeout=30_000)


def test_jupyterlab_speaks_chinese_and_asks_about_no_news(lab, page):
    open_notebook(page, lab, NOTEBOOKS[0])
    menus = page.locator("#jp-MainMenu").inner_text()
    assert all(word in menus for word in ("文件", "编辑", "运行", "内核")), menus
    assert page.get_by_text(re.compile("Jupyter news|Jupyter 新闻")).count() == 0


def test_a_verdict_was_written_down(scratch, lab):
    rows = (scratch / "report" / "results" / "class_show.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 and rows[1].endswith("部分对")


def test_training_stops_and_goes_on_at_a_click(scratch, lab, page):
    notebook = nbformat.read(PROJECT / "notebooks" / "04_train_lora.ipynb", as_version=4)
    started = next(i for i, cell in enumerate(notebook.cells) if "TrainingPanel(run)" in cell.source)
    notebook.cells = notebook.cells[: started + 1]
    for cell in notebook.cells:
        cell.source = cell.source.replace('RUN = "main"', 'RUN = "stopped"')
    nbformat.write(notebook, scratch / "notebooks" / "stop.ipynb")
    open_notebook(page, lab, "stop.ipynb")
    assert page.evaluate(RUN_ALL) == []
    page.get_by_text(re.compile(r"第 [1-9]\d*/\d+ 步")).wait_for(timeout=120_000)
    page.get_by_role("button", name="停止").click()
    page.get_by_text("已停止，进度已保存").wait_for(timeout=60_000)
    assert (scratch / "runs" / "stopped" / "checkpoint.pt").exists()
    before = int(re.search(r"第 (\d+)/", page.get_by_text("已停止，进度已保存").inner_text())[1])
    page.get_by_role("button", name="继续").click()
    page.get_by_text(re.compile(rf"第 ({before + 1}|{before + 2}|{before + 3})/\d+ 步")).wait_for(
        timeout=120_000
    )
    page.get_by_role("button", name="停止").click()
    page.get_by_text("已停止，进度已保存").wait_for(timeout=60_000)


SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
both_sizes = pytest.mark.parametrize("page", SIZES.values(), ids=list(SIZES), indirect=True)


def keep_picture(page, name):
    """A picture to look at, and the check that nothing is wider than the page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}_{page.viewport_size['width']}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@both_sizes
def test_the_class_show_answers_on_a_page_of_its_own(scratch, page, tmp_path):
    command = [
        sys.executable, "-m", "minimind_core.cli", "--root", str(scratch), "show", "--run", "base",
        "--no-browser", "--port", "{port}",
    ]  # fmt: skip
    with local_server(command, scratch, tmp_path / "voila.log") as (address, _):
        page.goto(address)
        page.get_by_role("button", name="发送").wait_for(timeout=120_000)
        ask(page, "《江南》是谁唱的？", "那他是哪里人？")
        page.get_by_text("依据：").wait_for(timeout=60_000)
        assert page.get_by_text("答：").count() == 2
        answer, box = (
            page.get_by_text("答：").last.bounding_box(),
            page.get_by_placeholder("请输入问题…").bounding_box(),
        )
        assert answer["y"] < box["y"] < page.viewport_size["height"]  # the answer first, both in view
        assert not page.get_by_text("温度").is_visible()  # sliders are folded
        buttons = [page.get_by_role("button", name=name).bounding_box() for name in ("发送", "清空")]
        assert buttons[0]["y"] == buttons[1]["y"] and buttons[0]["height"] < 40
        keep_picture(page, "class_show")
        page.goto("about:blank")


@both_sizes
def test_the_streamlit_page_answers(page, tmp_path):
    pytest.importorskip("streamlit")
    command = [
        sys.executable, "-m", "streamlit", "run", "web_demo.py", "--server.port={port}",
        "--server.address=127.0.0.1", "--server.headless=true",
    ]  # fmt: skip
    log = tmp_path / "streamlit.log"
    with local_server(command, PROJECT / "scripts", log) as (address, _):
        page.goto(address)
        box = page.get_by_test_id("stChatInputTextArea")
        box.wait_for(timeout=120_000)
        for number, question in enumerate(
            ["你是谁？", "那是谁做的你？"], 1
        ):  # the second interrupts the first
            box.fill(question)
            page.keyboard.press("Enter")
            page.get_by_test_id("stChatMessage").nth(2 * number - 1).wait_for(timeout=120_000)
        messages = page.get_by_test_id("stChatMessage")
        messages.nth(3).wait_for(timeout=120_000)
        page.get_by_text("正在回答…").wait_for(state="detached", timeout=120_000)
        texts = messages.all_inner_texts()
        assert [text.split()[-1] for text in texts[::2]] == ["你是谁？", "那是谁做的你？"]
        keep_picture(page, "streamlit")
    assert "Traceback" not in log.read_text(encoding="utf-8")


def test_the_browser_shows_chinese(chromium, page):
    page.set_content("<p style='font-size:60px'>音</p><p style='font-size:60px'>乐</p>")
    shapes = [page.locator("p").nth(i).screenshot() for i in (0, 1)]
    assert shapes[0] != shapes[1], "both characters are drawn as the same empty box"


def test_help_is_plain_without_a_browser(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert (
        browser_path() is None and "apt install chromium" in BROWSER_HELP and shutil.which("chromium") is None
    )
    assert load_workbook(PROJECT).root == PROJECT and font_environment()["FONTCONFIG_FILE"]
