"""Sample pages and searches: what is wrong or missing is marked, in order and not chosen."""

import unicodedata

import pytest

from stages.law.report.samples import data_uri, sample_pages, sample_searches, transcription


def test_images_must_be_images():
    with pytest.raises(ValueError, match="PNG or JPEG"):
        data_uri(b"<svg onload=alert(1)>")
    assert data_uri(b"\xff\xd8\xff\xe0").startswith("data:image/jpeg;base64,")


def test_wrong_and_missing_characters_are_marked():
    read = transcription(7, "Tai lieu X", "Tài liệu")
    assert read["pieces"] == [
        ("equal", "T"), ("wrong", "a"), ("equal", "i li"), ("wrong", "e"), ("equal", "u"), ("wrong", " X"),
    ]  # fmt: skip
    assert read["error_rate"] == pytest.approx(4 / 8)
    assert transcription(0, "", "abc")["pieces"] == [("missing", "abc")]
    assert transcription(0, "abc", "abc")["error_rate"] == 0 and not transcription(0, "a", "a")["cut"]
    long = transcription(0, "x" * 5000, "y")
    assert sum(len(text) for _, text in long["pieces"]) <= 400 and long["error_rate"] == 5000 and long["cut"]


def test_what_a_model_writes_is_shown_and_not_obeyed():
    read = transcription(0, "a\x1b[31m\u202eb", "ab")
    assert "".join(text for _, text in read["pieces"]) == r"a\x1b[31m\u202eb"
    assert read["error_rate"] == pytest.approx(6 / 2)


def test_what_was_written_after_the_shown_part_is_not_missing():
    page = "Một đoạn văn bản dài. " * 100
    right = transcription(0, page, page)
    assert right["pieces"] == [("equal", page[:400])] and right["cut"] and right["error_rate"] == 0
    read = transcription(0, "x" + page[1:1000], page)
    assert [kind for kind, _ in read["pieces"]] == ["wrong", "equal"]
    assert read["error_rate"] == pytest.approx((1 + len(page) - 1000) / len(page))
    nothing = transcription(0, "", page)
    assert nothing["pieces"] == [("missing", page[:400])] and nothing["error_rate"] == 1


def test_characters_are_compared_in_one_normal_form():
    text = "Chèn một bảng tính"
    read = transcription(0, unicodedata.normalize("NFD", text), text)
    assert read["error_rate"] == 0 and read["pieces"] == [("equal", text)]


def test_pages_come_in_order_from_lowest_and_highest_dose():
    examples = {
        dose: [{"key": f"k{number}", "text": "ab", "decoded": "a"} for number in range(6)]
        for dose in (900, 0, 2400)
    }
    pages = sample_pages(examples, 3)
    assert [page["key"] for page in pages] == ["k0", "k1", "k2"]
    assert [read["dose"] for read in pages[0]["transcriptions"]] == [0, 2400]


def test_searches_run_from_the_largest_gain_to_the_largest_loss():
    ranks = {0: (5, 6, 1, 4), 900: (1, 1, 1, 1), 2400: (4, 1, 9, 4)}
    examples = {
        dose: [
            {"query": f"q{number}", "relevant": ["k1"], "rank": rank, "top": [{"key": "k0"}, {"key": "k1"}]}
            for number, rank in enumerate(of_dose)
        ]
        for dose, of_dose in ranks.items()
    }
    written = {0: {"k1": "x"}, 900: {"k1": "ab"}, 2400: {"k1": "ab", "k0": "y"}}
    searches = sample_searches(examples, count=3, images=1, written=written, text_of={"k1": "ab"}.get)
    read = [(one["dose"], one["error_rate"]) for one in searches[0]["transcriptions"]]
    assert read == [(0, 1.0), (2400, 0.0)]
    unread = sample_searches(examples, count=1, images=1, written={}, text_of={"k1": "ab"}.get)
    assert unread[0]["transcriptions"] == []
    shown = [[(one["dose"], one["rank"], one["keys"]) for one in search["results"]] for search in searches]
    assert [search["query"] for search in searches] == ["q1", "q3", "q2"]
    assert shown[0] == [(0, 6, ["k0"]), (2400, 1, ["k0"])]
