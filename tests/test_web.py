"""The Streamlit page answers without a browser; the module is skipped where streamlit is not installed."""

import shutil

import pytest
from conftest import PROJECT

testing = pytest.importorskip("streamlit.testing.v1")


@pytest.fixture
def page(workbook):
    shutil.copytree(PROJECT / "scripts", workbook.root / "scripts")
    return testing.AppTest.from_file(str(workbook.root / "scripts" / "web_demo.py"), default_timeout=60).run()


def test_a_question_is_answered_and_stays_on_the_page(page):
    assert not page.exception and page.selectbox[0].options == ["base"]
    page.chat_input[0].set_value("你是谁？").run()
    assert not page.exception
    assert [message.name for message in page.chat_message] == ["user", "assistant"]
    assert page.chat_message[0].markdown[0].value == "你是谁？"


def test_clearing_forgets_the_talk(page):
    page.chat_input[0].set_value("你好").run()
    page.button[0].click().run()
    assert not page.exception and not page.chat_message
