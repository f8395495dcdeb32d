"""What is wrong within the texts of one conversation."""

from __future__ import annotations

import re

from minimind_core.conversations.schema import Conversation

FOREIGN = re.compile(
    r"(?<![a-z])(?:ChatGPT|OpenAI|GPT-?[345]|Claude|DeepSeek|Kimi|ChatGLM|MiniMind|Qwen|Gemini|Siri)(?![a-z])"
    r"|文心一言|通义千问|豆包|讯飞星火|小爱同学|智谱",
    re.IGNORECASE,
)
# Invisible characters; the joiner U+200D and selectors stay, emoji are made with them.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # line ends of other systems
TAGS = "p|br|div|span|a|img|table|t[rdh]|ul|ol|li|h[1-6]|strong|em|font|script|style|sup|sub|ref|b|i|u"
MARKUP = re.compile(
    rf"(?<![A-Za-z0-9_])</?(?:{TAGS})(?:\s+[\w-]+=[^<>]*)?\s*/?>|&(?:nbsp|amp|lt|gt|quot|#\d+);", re.I
)
NOTE = re.compile(r"(?<![\w\])])\[\d+\]|(?<=[\u4e00-\u9fff])\[\d+\]")
# What program text looks like: in it, brackets and braces mean something.
CODE = re.compile(
    r"`|#include|[A-Za-z_]\w*\[[A-Za-z0-9_]+\]|\b\w+\([^()\u4e00-\u9fff]*\)|\bf\"|<\w*>\s*\w+\s*[=;(]|[;{]\s*(?:$|\n)|#\s*TODO"
    r"|==|&&|\|\||<<|->|::|//\s*TODO|\bHTML\b|代码",
    re.IGNORECASE,
)
NAMED = "名称|姓名|名字|团队名|队名|组名|校名|公司名|日期|时间|地址|电话|网址|作者|团队|小组|学校|公司|助手名"
PLACEHOLDER = re.compile(
    r"(?<![A-Za-z])(?:TODO|XXX+|TBD)(?![A-Za-z])|待补充|待填|此处填写|\{\{.*?\}\}|\{[A-Za-z_]+\}"
    rf"|(?<![A-Za-z0-9_])<[A-Z][A-Z_ ]+>|<(?:你的|你们的)?(?:{NAMED})>"
    rf"|[\[【](?:你的|你们的|我的|填写|请填写)?(?:{NAMED})[\]】]|(?<![A-Za-z])_{{3,}}(?![A-Za-z])"
)
SPECIAL = re.compile(r"<\|[a-z_]+\|>")
CUT_OFF = re.compile(r"[，、,：:；;（(《“]$")
IN_CODE = (MARKUP, PLACEHOLDER, NOTE, CUT_OFF)  # in program text these are no faults

# What is looked for in each text: pattern, only in answers, error, what, remedy.
TEXT_CHECKS: tuple[tuple[re.Pattern, bool, bool, str, str], ...] = (
    (SPECIAL, False, True, "含有对话模板的特殊词元", "请删去，模板由程序添加"),
    (
        re.compile("\ufffd|锟斤拷|烫烫|屯屯|â€|ã€|鈥|銆"),
        False,
        True,
        "含有乱码",
        "请从原始文件按正确的编码重新读取",
    ),
    (CONTROL, False, True, "含有看不见的控制字符", "请删去"),
    (LINE_ENDS, False, True, "含有别的系统的换行符（U+2028 等），有的程序会在这里断行", "请换成普通换行"),
    (MARKUP, False, False, "含有网页标记", "请只保留文字"),
    (PLACEHOLDER, True, True, "含有没填的占位文字", "请填上或删去这一行"),
    (NOTE, False, False, "含有百科的注释编号", "请删去"),
    (re.compile(r"https?://|www\."), True, False, "回答里有网址，小模型记不住", "请删去网址"),
    (re.compile(r"^\s|\s$"), False, False, "开头或结尾有空白", "请删去空白"),
    (re.compile(r"(.{2,}?)\1{2,}"), True, False, "回答自己在重复", "请删去重复的部分，否则模型会学着复读"),
    (CUT_OFF, True, False, "回答像是被截断的", "请补全"),
    (FOREIGN, True, True, "出现了别的助手或公司", "请改成你们自己的身份"),
)


def text_problems(row: Conversation, own: str = "") -> list[tuple[bool, str, str]]:
    """(error, what, remedy) of everything that is wrong within one conversation.

    `own` is the persona's name, which may be said. In program text, marks and braces are no faults.
    """
    code = any(CODE.search(turn.content) for turn in row.conversations)
    problems = []
    for pattern, only_answers, error, what, remedy in TEXT_CHECKS:
        if code and pattern in IN_CODE:
            continue
        for turn in row.conversations:
            if only_answers and turn.role != "assistant":
                continue
            text = turn.content.replace(own, "") if own and pattern is FOREIGN else turn.content
            if match := pattern.search(text):
                problems.append((error, f"{what}：“{shown(match[0])}”", remedy))
                break
    for turn in row.conversations:
        if any(turn.content.count(a) != turn.content.count(b) for a, b in ("《》", "“”")):
            problems.append((False, f"书名号或引号不成对：“{turn.content[:20]}”", "请补全"))
            break
    first = row.conversations[0]
    if first.role == "system" and (
        match := FOREIGN.search(first.content.replace(own, "") if own else first.content)
    ):
        problems.append((False, f"系统提示里有别的助手：“{match[0]}”", "请改成你们自己的身份"))
    if row.answer.strip() == row.question.strip():
        problems.append((True, "回答与问题相同", "请写上回答"))
    return problems


def shown(text: str) -> str:
    """A found text as it can be read: characters that cannot be seen by their numbers."""
    text = text.strip(" \t\n")[:20] or text
    return "".join(
        f"U+{ord(letter):04X}" if CONTROL.match(letter) or LINE_ENDS.match(letter) else letter
        for letter in text
    )
