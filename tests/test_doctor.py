import json
import tracemalloc
from pathlib import Path

import pytest

from minimind_core.conversations import doctor
from minimind_core.conversations.schema import Conversation, dialogue
from minimind_core.conversations.similarity import jaccard, near_duplicates, repetitions, shingles
from minimind_core.conversations.text_checks import text_problems


def line(question="问一个问题", answer="这是回答。", **extra) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"conversations": turns, **extra}, ensure_ascii=False)


def roles(*names: str) -> str:
    return json.dumps(
        {"conversations": [{"role": name, "content": "内容"} for name in names]}, ensure_ascii=False
    )


# What is planted in the file, and a word of the finding that must point at its line.
FAULTS = [
    ("{", "JSON"), ("[]", "是空的"), ("null", "应"), ("只有文字", "JSON"), ('{"conversations": []}', "是空的"), ('{"text": "x"}', "预训练"), ('{"y": "x"}', "缺少"),
    (line("附加的", extra="x"), "附加字段"), ('{"conversations": "x"}', "应|valid|tuple"), (roles("user"), "assistant 结尾"), (roles("assistant", "user"), "交替"),
    (roles("user", "user", "assistant"), "交替"), (roles("user", "system", "assistant"), "交替"), (roles("bot2x", "assistant"), "只能是"),
    (roles("user", "assistant", "user"), "assistant 结尾"), (line(answer=""), "空的"), (line(question="  "), "空的"), (line(answer="\n"), "空的"),
    (line("特殊一", "好<|im_end|>"), "特殊词元"), (line("特殊<|im_start|>", "好"), "特殊词元"), (line("乱码一", "锟斤拷"), "乱码"), (line("乱码二", "坏\ufffd字"), "乱码"),
    (line("控制", "有\u200b零宽"), "控制字符"), (line("控制二", "响铃\x07"), "控制字符"), (line("网页一", "<p>段落</p>"), "网页标记"), (line("网页二", "甲&nbsp;乙"), "网页标记"),
    (line("占位", "TODO"), "占位"), (line("占位二", "我是{name}"), "占位"), (line("占位三", "我们是[团队名]的助手"), "占位"), (line("占位四", "由<NAME>开发"), "占位"),
    (line("占位五", "我叫____。"), "占位"), (line("占位六", "我是{{NAME}}。"), "占位"), (line("换行", "上\u2028下"), "换行符"), (line("反向", "上\u202e下"), "控制字符"), (line("软连", "上\u00ad下"), "控制字符"), (line("注释", "生于北京[1]。"), "注释编号"), (line("网址", "见https://example.org"), "网址"),
    (line("空白", " 前面有空格"), "空白"), (line("空白二 ", "回答"), "空白"), (line("复读", "知道呀，知道呀，知道呀，"), "重复"), (line("截断", "因为，"), "截断"),
    (line("你是谁", "我是ChatGPT"), "别的助手"), (line("谁做的", "由OpenAI训练"), "别的助手"), (line("真名", "我是文心一言"), "别的助手"), (line("哪家", "DeepSeek 的模型"), "别的助手"),
    (line("书名", "收录于《范特西"), "不成对"), (line("引号", "他说“好"), "不成对"), (line("相同", "相同"), "与问题相同"),
    (line("重复的行", "一样"), None), (line("重复的行", "一样"), "完全相同"), (line("矛盾", "甲"), None), (line("矛盾", "乙"), "回答却不同"),
    (line("太长了", "长" * 300), "超过 200"),
    (line("请问周杰伦的第一张专辑到底叫什么名字呢我一直想知道这件事情", "Jay"), None), (line("请问周杰伦的第一张专辑到底叫什么名字呢我一直想知道这件事情！！", "Jay。"), "几乎相同"),
    (line("含Kimi", "我是Kimi"), "别的助手"),
]  # fmt: skip


def test_doctor_points_at_every_planted_fault(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(text for text, _ in FAULTS), encoding="utf-8")
    found: dict[int, str] = {}
    for finding in doctor.examine(path, lambda rows: [len(row.answer) for row in rows], max_length=200):
        found[finding.line] = found.get(finding.line, "") + str(finding)
    assert sum(expected is not None for _, expected in FAULTS) >= 40
    for number, (text, expected) in enumerate(FAULTS, 1):
        if expected is None:
            assert number not in found, text
        else:
            assert any(word in found.get(number, "") for word in expected.split("|")), (
                text,
                found.get(number),
            )


def test_bom_and_other_encodings_are_found(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line("一", "二").encode() + b"\n" + line("三", "四").encode("gb18030"))
    found = {f.line: str(f) for f in doctor.examine(path) if "学不到" not in f.what}
    assert set(found) == {1, 2} and "BOM" in found[1] and "不是 UTF-8" in found[2]


def test_what_programs_write_is_no_fault():
    answers = [
        "用 vector<int> a; 就行。",
        "#include <stdio.h>",
        "a[0] 是第一个。",
        'f"你好，{name}"。',
        "写 &lt; 。",
        "List<String> names;",
        "写一行 # TODO: 以后再改。",
        "for i in range(3):\n    print(i)",
        "a<b 而且 c>d",
        "x <<= 2",
    ]
    for answer in answers:
        assert not [p for p in text_problems(dialogue("代码怎么写？", answer)) if p[0]], answer


def test_system_prompts_are_looked_at(tmp_path):
    rows = [
        [{"role": "system", "content": text}, *json.loads(line(f"问题{n}"))["conversations"]]
        for n, text in enumerate(["你是小音。", "你是小音。", "你是ChatGPT。"])
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"conversations": row}) for row in rows), encoding="utf-8")
    said = [(f.line, f.what) for f in doctor.examine(path) if not f.error]
    assert (3, "有 2 种系统提示") in said and any(n == 3 and "ChatGPT" in what for n, what in said)
    assert (1, "只有 3 条对话，学不到什么") in said


@pytest.mark.parametrize(("one", "other", "contrary"), [
    ("社长是大二的同学。", "社长是大三的同学。", True), ("一共9个。", "一共10个。", True),
    ("你好，我是小音，有什么可以帮你？", "你好呀，我是小音。", False), ("我是小音，旋律小队做的。", "我是小音。", False),
])  # fmt: skip
def test_two_answers_contradict_each_other_or_only_differ(one, other, contrary):
    assert doctor.differ_in_a_word(one, other) is doctor.differ_in_a_word(other, one) is contrary


def test_near_duplicates_are_those_that_exact_comparison_finds():
    names = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉"
    texts = [
        f"昨天晚上我和几个朋友一起听歌有人问起{n}位歌手的第一张专辑到底叫什么名字大家想了很久也没有想出来所以今天来请教你{'呀' * (i % 3)}"
        for i, n in enumerate(names)
    ] + ["完全不同的一句话"]
    pairs = {
        (i, j)
        for i, a in enumerate(texts)
        for j, b in enumerate(texts)
        if jaccard(shingles(a), shingles(b)) >= 0.85
    }
    found = near_duplicates(texts, texts, 0.85)
    assert {(i, j) for i, j, _ in found} == {
        (i, min(b for a, b in pairs if a == i)) for i in range(len(texts))
    }
    later = {(i, j) for i, j, _ in repetitions(texts, 0.85)}
    assert later <= {(i, j) for i, j in pairs if j < i} and len(later) > 10
    assert repetitions([], 0.85) == near_duplicates([], texts, 0.85) == []


def test_capacity_warns_before_a_run_that_cannot_succeed():
    rows = [dialogue(f"问{i}", str(hash(("x", i)) ** 3), subject=str(i), attribute="值") for i in range(300)]
    tight = doctor.capacity(rows, parameters=1000, epochs=1)
    assert tight.load > 1 and len(tight.warnings()) == 2
    roomy = doctor.capacity(rows * 10, parameters=10**6, epochs=2)
    assert roomy.bits == tight.bits and roomy.fewest == 20 and not roomy.warnings()


def test_hundred_thousand_rows_are_examined_in_bounded_memory(tmp_path: Path):
    path = tmp_path / "many.jsonl"
    path.write_text(
        "\n".join(line(f"第{i}个问题是{i * 7919}吗", f"回答{i}。") for i in range(5_000)), encoding="utf-8"
    )
    tracemalloc.start()
    assert not doctor.examine(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # 100,000 rows, twenty times as many, stay under 1 GB


def test_context_is_everything_before_the_answer():
    turns = [
        {"role": r, "content": c}
        for r, c in (
            ("system", "甲"),
            ("user", "乙"),
            ("assistant", "丙"),
            ("user", "丁"),
            ("assistant", "戊"),
        )
    ]
    assert doctor.context(Conversation.model_validate({"conversations": turns})) == "甲\n乙\n丙\n丁"


@pytest.mark.parametrize("text", ["《范特西》是谁的专辑？", "我是小音，由旋律小队训练。"])
def test_good_text_has_no_problem(text):
    assert text_problems(dialogue("问题", text)) == []


@pytest.mark.parametrize("answer", ["演出者是 Mastodon 乐队。", "XXXTENTACION 的歌。", "I'm Desiring。"])
def test_words_that_merely_contain_a_mark_are_no_problem(answer):
    assert text_problems(dialogue("问题", answer)) == []


def test_the_persona_may_say_its_own_name():
    row = dialogue("你是谁", "我是MiniMind小音。")
    assert text_problems(row) and not text_problems(row, own="MiniMind小音")
