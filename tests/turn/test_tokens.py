"""Estimates of tokens, over texts whose count by a published tokenizer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.images import png_header
from kirostream.turn.request import Attachment, Image, Message, Role, Text, Thought, Tool, ToolResult, TurnRequest
from kirostream.turn.tokens import (
    _KINDS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    estimate,
    estimate_head,
    estimate_image,
    estimate_message,
    estimate_text,
)


class Sample(NamedTuple):
    """A text, and its tokens by the tokenizer that Anthropic published for Claude 2 (npm @anthropic-ai/tokenizer)."""

    name: str
    tokens: int
    text: str


# fmt: off
SAMPLES = (
    Sample(
        "Chinese, simplified",
        123,
        (
            "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。人人有资格享"
            "有本宣言所载的一切权利和自由,不分种族、肤色、性别、语言、宗教、政治或其他见解、国籍或社会出身、"
            "财产、出生或其他身分等任何区别。"
        ),
    ),
    Sample(
        "Chinese, traditional",
        117,
        (
            "人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心,並應以兄弟關係的精神互相對待。任何人都有"
            "資格享受本宣言所載的一切權利和自由,不分種族、膚色、性別、語言、宗教、政治或其他見解。"
        ),
    ),
    Sample(
        "Japanese, legal",
        216,
        (
            "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性"
            "と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。すべて人は、人種、皮膚"
            "の色、性、言語、宗教、政治上その他の意見、国民的若しくは社会的出身、財産、門地その他の地位又はこ"
            "れに類するいかなる事由による差別をも受けることなく、この宣言に掲げるすべての権利と自由とを享有す"
            "ることができる。"
        ),
    ),
    Sample(
        "Japanese, a novel",
        115,
        (
            "メロスは激怒した。必ず、かの邪智暴虐の王を除かなければならぬと決意した。メロスには政治がわからぬ"
            "。メロスは、村の牧人である。笛を吹き、羊と遊んで暮して来た。けれども邪悪に対しては、人一倍に敏感"
            "であった。"
        ),
    ),
    Sample(
        "Korean, legal",
        243,
        (
            "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양"
            "심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다. 모든 사람은 인종, 피부색, 성, 언어, 종"
            "교, 정치적 또는 기타의 견해, 민족적 또는 사회적 출신, 재산, 출생 또는 기타의 신분과 같은 어떠한 "
            "종류의 차별이 없이, 이 선언에 규정된 모든 권리와 자유를 향유할 자격이 있다."
        ),
    ),
    Sample(
        "Russian",
        89,
        (
            "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и сов"
            "естью и должны поступать в отношении друг друга в духе братства."
        ),
    ),
    Sample(
        "Hindi",
        199,
        (
            "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें ब"
            "ुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।"
        ),
    ),
    Sample(
        "Arabic",
        102,
        (
            "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق، وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم ب"
            "عضا بروح الإخاء."
        ),
    ),
    Sample(
        "English",
        84,
        (
            "All human beings are born free and equal in dignity and rights. They are endowed with reason and"
            " conscience and should act towards one another in a spirit of brotherhood. Everyone is entitled "
            "to all the rights and freedoms set forth in this Declaration, without distinction of any kind, s"
            "uch as race, colour, sex, language, religion, political or other opinion, national or social ori"
            "gin, property, birth or other status."
        ),
    ),
    Sample(
        "Chinese, technical",
        95,
        (
            "这个函数先读取请求的正文,再把它转换成内部的数据结构。如果正文太大,就返回错误,并告诉调用者应该怎"
            "么做。请注意:缓存只在同一个会话里有效,重新启动以后需要重新计算。我们建议把超时时间设为三十秒,这"
            "样网络不稳定的时候也不会立刻失败。"
        ),
    ),
    Sample(
        "Japanese, technical",
        114,
        (
            "この関数はリクエストの本文を読み込み、内部のデータ構造に変換します。サイズが大きすぎる場合はエラ"
            "ーを返し、呼び出し側に対処方法を伝えます。キャッシュは同じセッションの中でだけ有効なので、再起動"
            "した後はもう一度計算する必要があります。"
        ),
    ),
    Sample(
        "Korean, technical",
        124,
        (
            "이 함수는 요청 본문을 읽고 내부 자료 구조로 변환합니다. 본문이 너무 크면 오류를 돌려주고 호출한 "
            "쪽에 무엇을 해야 하는지 알려 줍니다. 캐시는 같은 세션 안에서만 유효하므로 다시 시작한 뒤에는 새"
            "로 계산해야 합니다."
        ),
    ),
    Sample(
        "Python",
        139,
        (
            "    def feed(self, data: bytes) -> list[Frame]:\n"
            '        """Take the next bytes, in any cut."""\n'
            "        self._buffer += data\n"
            "        frames = []\n"
            "        while len(self._buffer) >= 12:\n"
            '            total, headers = unpack_from(">II", self._buffer)\n'
            "            if total > self.max_message:\n"
            '                raise FrameError("too_large", f"{total} bytes is more than {self.max_message}")\n'
            "            if len(self._buffer) < total:\n"
            "                break\n"
            "            frames.append(self._frame(memoryview(self._buffer)[:total]))\n"
            "            del self._buffer[:total]\n"
            "        return frames\n"
        ),
    ),
    Sample(
        "JavaScript",
        120,
        (
            "export async function* lines(stream) {\n"
            "  const decoder = new TextDecoder();\n"
            "  let rest = '';\n"
            "  for await (const chunk of stream) {\n"
            "    rest += decoder.decode(chunk, { stream: true });\n"
            "    const parts = rest.split(/\\r?\\n/);\n"
            "    rest = parts.pop() ?? '';\n"
            "    for (const part of parts) if (part !== '') yield JSON.parse(part);\n"
            "  }\n"
            "  if (rest) throw new Error(`stream ended inside a line: ${rest.slice(0, 80)}`);\n"
            "}\n"
        ),
    ),
    Sample(
        "JSON schema",
        78,
        (
            '{"name":"search_files","description":"Finds files by a pattern.","input_schema":{"type":"object"'
            ',"properties":{"pattern":{"type":"string","description":"A glob, such as **/*.py"},"limit":{"typ'
            'e":"integer","minimum":1,"maximum":500,"default":50},"hidden":{"type":"boolean"}},"required":["p'
            'attern"],"additionalProperties":false}}'
        ),
    ),
    Sample(
        "lock file",
        174,
        (
            '{"node_modules/zod":{"version":"4.1.12","integrity":"sha512-JInaHOamG8pt5+Ey8kGmdcAcg3OL9reK8ltc'
            'zgHTAwNhMys/6ThXHityHxVV2p3fkw/c+MAvBHFVYHFZDmjMCQ==","license":"MIT"},"node_modules/ws":{"versi'
            'on":"8.18.3","integrity":"sha512-PEIGCY5tSlUt50cqyMXfCzX+oOPqN0vuGqWzbcJ2xvnkzkbsOpOaJ8IZ3YkNBkO'
            '3Q7OyWxWPHJgOZ3tkkDqBhg=="}}'
        ),
    ),
    Sample(
        "log",
        300,
        (
            "2026-11-21T17:00:00.000Z INFO worker-0 request id=req_0000 status=200 bytes=0 took=0ms\n"
            "2026-11-21T17:01:07.013Z INFO worker-1 request id=req_1eef status=201 bytes=331 took=17ms\n"
            "2026-11-21T17:02:14.026Z INFO worker-2 request id=req_3dde status=202 bytes=662 took=34ms\n"
            "2026-11-21T17:03:21.039Z INFO worker-3 request id=req_5ccd status=200 bytes=993 took=51ms\n"
            "2026-11-21T17:04:28.052Z INFO worker-4 request id=req_7bbc status=201 bytes=1324 took=68ms\n"
            "2026-11-21T17:05:35.065Z INFO worker-5 request id=req_9aab status=202 bytes=1655 took=85ms\n"
            "2026-11-21T17:06:42.078Z INFO worker-6 request id=req_b99a status=200 bytes=1986 took=102ms\n"
            "2026-11-21T17:07:49.091Z INFO worker-7 request id=req_d889 status=201 bytes=2317 took=119ms"
        ),
    ),
    Sample(
        "table",
        152,
        (
            "0.00,0.00,0,0\n"
            "37.25,411.50,13,7919\n"
            "74.50,323.00,26,5831\n"
            "111.75,234.50,39,3743\n"
            "149.00,146.00,52,1655\n"
            "186.25,57.50,65,9574\n"
            "223.50,469.00,78,7486\n"
            "260.75,380.50,91,5398\n"
            "298.00,292.00,7,3310\n"
            "335.25,203.50,20,1222\n"
            "372.50,115.00,33,9141\n"
            "409.75,26.50,46,7053"
        ),
    ),
    Sample(
        "base64",
        279,
        (
            "9bFlIkpYt5HfavHYMD5hzcS7hsPRxCcQPDRMQYnrLx571dR+RG/OwqPYEXNhEOV4G8zOppZ2LmEWxunJLZm/NYwuBxiCLOR8"
            "qMdBB+ZssOSys/TVjYLKY4bSyW52DoGbhckkw1lxZMSmBYoAWBoisi3lBHJDPS5E/ti2uDV+RM0xKZA6wdRVl6JC/fEfjysa"
            "OfPD5pMRQ1HcvtQH4+a2Bbmegwbdp0imHgKaij9BWwJKFGzw2YqY4c+ZlmH5Z72v3w5zN0IME/j11A9s4HnRuYc3bwe8uBKH"
            "/cjAOI/ogcOgZhlw7z9t8BSN7X6KNIiNOWyrO4DSf1jfERo7PfJFrakIAjiaeM3ClJKodfdKxvOqIC9K2Ykv7XVZgAW6xIpq"
            "noJr1vCokOpHynOO"
        ),
    ),
)
# fmt: on


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_an_estimate_is_near_the_count(sample: Sample) -> None:
    """Never an eighth too low, since a client that compacts too late loses its turn; nor half too high."""
    assert 0.85 <= estimate_text(sample.text) / sample.tokens <= 1.45
    assert estimate_text(sample.text.encode()) == estimate_text(sample.text)


def test_on_the_whole_an_estimate_is_a_little_high() -> None:
    ratios = sorted(estimate_text(sample.text) / sample.tokens for sample in SAMPLES)
    assert 1.0 <= ratios[len(ratios) // 2] <= 1.15


def test_every_byte_has_one_weight() -> None:
    assert sorted(b"".join(kind for kind, _ in _KINDS)) == list(range(256))


@given(st.text(), st.text())
def test_texts_add_up(one: str, two: str) -> None:
    assert abs(estimate_text(one) + estimate_text(two) - estimate_text(one + two)) <= 1


def test_half_a_character_is_counted() -> None:
    assert estimate_text("\ud83d") == 1


def image(width: int, height: int) -> Image:
    return Image("image/png", png_header(width, height))


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(200, 200, 53), (1000, 1000, 1_333), (1, 1, 1), (4000, 3000, IMAGE_TOKENS), (8000, 80, 33)],
)
def test_an_image_counts_by_its_pixels(width: int, height: int, tokens: int) -> None:
    """As its makers say: width x height / 750, scaled down to 1,568 pixels of the longer edge, 1,600 at the most."""
    assert estimate_image(image(width, height)) == tokens


def test_base64_of_an_image_is_no_text() -> None:
    small = Image("image/png", png_header(200, 200) + "A" * 400_000)
    assert estimate_image(small) == 53
    assert estimate_image(Image("image/png", "A" * 400_000)) == IMAGE_TOKENS


def test_every_part_of_a_message_counts() -> None:
    result = ToolResult("id", (Text("a" * 1000), image(200, 200), Attachment("image/*", url="https://x/")))
    message = Message(Role.USER, (Text("b" * 1000), Thought("c" * 1000), image(200, 200), result))
    assert estimate_message(message) == MESSAGE_TOKENS + 3 * 195 + 2 * 53 + IMAGE_TOKENS
    request = TurnRequest(model="m", messages=(message, message), system=(Text("d" * 1000),))
    assert estimate(request) == estimate_head(request) + 2 * estimate_message(message)
    assert estimate_head(request) == 195


def test_what_was_counted_stays_with_message_and_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message(Role.USER, (Text("Hello there"),))
    request = TurnRequest(model="m", messages=(message,), tools=(Tool("read", "Reads.", b"{}"),))
    counted = estimate(request)
    longer = replace(request, messages=(message, message))
    both = counted + estimate_message(message)
    monkeypatch.setattr("kirostream.turn.tokens.estimate_text", None)
    assert estimate(replace(request, model="n")) == counted
    assert estimate(longer) == both
    with pytest.raises(TypeError):
        estimate(replace(request, messages=(replace(message, content=(Text("Other"),)),)))
