import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind_core.conversations import doctor, repairing
from minimind_core.conversations.schema import Conversation, dialogue, read_conversations
from minimind_core.conversations.similarity import jaccard, near_duplicates, repetitions, shingles


def line(question="问一个问题", answer="这是回答。", **extra) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"conversations": turns, **extra}, ensure_ascii=False)


def roles(*names: str) -> str:
    return json.dumps(
        {"conversations": [{"role": name, "content": "内容"} for name in names]}, ensure_ascii=False
    )


# What is planted in the file, and a word of the finding that must point at its line.
FAULTS = [
    ("{", "JSON"), ("[]", "JSON|object|字段|应"), ("null", "应|valid|object"), ("只有文字", "JSON"), ('{"conversations": []}', "交替"), ('{"text": "x"}', "缺少"),
    (line(extra="x"), "多余"), ('{"conversations": "x"}', "应|valid|tuple"), (roles("user"), "assistant 结尾"), (roles("assistant", "user"), "交替"),
    (roles("user", "user", "assistant"), "交替"), (roles("user", "system", "assistant"), "交替"), (roles("bot", "assistant"), "只能是"),
    (roles("user", "assistant", "user"), "assistant 结尾"), (line(answer=""), "空的"), (line(question="  "), "空的"), (line(answer="\n"), "空的"),
    (line("特殊一", "好<|im_end|>"), "特殊词元"), (line("特殊<|im_start|>", "好"), "特殊词元"), (line("乱码一", "锟斤拷"), "乱码"), (line("乱码二", "坏\ufffd字"), "乱码"),
    (line("控制", "有\u200b零宽"), "控制字符"), (line("控制二", "响铃\x07"), "控制字符"), (line("网页一", "<p>段落</p>"), "网页标记"), (line("网页二", "甲&nbsp;乙"), "网页标记"),
    (line("占位", "TODO"), "占位"), (line("占位二", "我是{name}"), "占位"), (line("注释", "生于北京[1]。"), "注释编号"), (line("网址", "见https://example.org"), "网址"),
    (line("空白", " 前面有空格"), "空白"), (line("空白二 ", "回答"), "空白"), (line("复读", "知道呀，知道呀，知道呀，"), "重复"), (line("截断", "因为，"), "截断"),
    (line("你是谁", "我是ChatGPT"), "别的助手"), (line("谁做的", "由OpenAI训练"), "别的助手"), (line("真名", "我是文心一言"), "别的助手"), (line("哪家", "DeepSeek 的模型"), "别的助手"),
    (line("书名", "收录于《范特西"), "不成对"), (line("引号", "他说“好"), "不成对"), (line("相同", "相同"), "与问题相同"),
    (line("重复的行", "一样"), None), (line("重复的行", "一样"), "完全相同"), (line("矛盾", "甲"), None), (line("矛盾", "乙"), "回答却不同"),
    (line("太长了", "长" * 300), "截断"),
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
    findings = doctor.examine(path)
    assert (
        [(f.line, f.error) for f in findings] == [(1, False), (2, True)]
        and "BOM" in str(findings[0])
        and "UTF-8" in str(findings[1])
    )


def test_fixing_never_touches_the_input_and_keeps_what_can_be_mended(tmp_path):
    path, out = tmp_path / "rows.jsonl", tmp_path / "fixed.jsonl"
    share = json.dumps(
        {"conversations": [{"from": "human", "value": "甲"}, {"from": "gpt", "value": "乙"}]},
        ensure_ascii=False,
    )
    path.write_bytes(
        b"\xef\xbb\xbf"
        + "\n".join(text for text, _ in FAULTS).encode()
        + b"\n"
        + share.encode()
        + b"\n"
        + line("国标", "码").encode("gb18030")
    )
    before = path.read_bytes()
    kept, dropped = repairing.fix(path, out)
    assert path.read_bytes() == before and kept + dropped == len(FAULTS) + 2
    pairs = {(row.question, row.answer) for row in read_conversations(out)}
    assert {("网页一", "段落"), ("注释", "生于北京。"), ("甲", "乙"), ("国标", "码"), ("矛盾", "甲")} <= pairs
    assert not any(f.error for f in doctor.examine(out))


contents = st.text(alphabet=st.sampled_from("你好<p>&amp;[1]\u200b ab|《》\n"), min_size=1, max_size=12)


@given(st.lists(st.tuples(contents, contents), min_size=1, max_size=6))
def test_fixing_twice_is_fixing_once(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("fix")
    (folder / "a.jsonl").write_text("\n".join(line(q, a) for q, a in pairs), encoding="utf-8")
    repairing.fix(folder / "a.jsonl", folder / "b.jsonl")
    repairing.fix(folder / "b.jsonl", folder / "c.jsonl")
    assert (folder / "b.jsonl").read_bytes() == (folder / "c.jsonl").read_bytes()


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
    assert doctor.text_problems(dialogue("问题", text)) == []


@pytest.mark.parametrize("answer", ["演出者是 Mastodon 乐队。", "XXXTENTACION 的歌。", "I'm Desiring。"])
def test_words_that_merely_contain_a_mark_are_no_problem(answer):
    assert doctor.text_problems(dialogue("问题", answer)) == []


def test_the_persona_may_say_its_own_name():
    row = dialogue("你是谁", "我是MiniMind小音。")
    assert doctor.text_problems(row) and not doctor.text_problems(row, own="MiniMind小音")


def test_what_is_no_text_is_dropped_not_spelt_out(tmp_path):
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": None}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"conversations": turns}), encoding="utf-8")
    assert repairing.fix(tmp_path / "a.jsonl", tmp_path / "b.jsonl") == (0, 1)
