"""Loading: what is accepted, what it becomes, and that every error of a file comes at once."""

import os
from decimal import Decimal
from pathlib import Path

import pytest
from config_samples import GOOD
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmd.config.load import FILE_BYTES_MAX, load, load_text
from mmd.config.model import NearestToMoney, NetworkKind, Selection
from mmd.config.render import to_yaml
from mmd.domain.errors import ConfigError
from mmd.domain.reasons import Mode
from mmd.domain.settings import Fair, Requote

ROOT = Path(__file__).parents[2]
BAD = Path(__file__).parent / "bad"
CASES = sorted(path for path in (*BAD.glob("*.yaml"), *BAD.glob("*/mmd.yaml")))


def test_the_good_one_becomes_what_it_says() -> None:
    config = load_text(GOOD)
    perp, options = config.entries
    assert config.service.mode is Mode.SHADOW
    assert config.service.metrics_listen == ("127.0.0.1", 9464)
    assert config.exchanges["deribit"].network is NetworkKind.SANDBOX
    assert perp.settings.profile.fair is Fair.MICROPRICE
    assert perp.settings.profile.requote is Requote.AMEND
    assert perp.settings.limits.max_position == 100
    assert isinstance(options.target, Selection)
    assert options.target.strikes == NearestToMoney(2)
    assert options.settings.profile.improve_by == Decimal("0.0005")
    assert options.settings.profile.size == Decimal("0.1")
    assert options.settings.limits.max_position == 1
    assert options.settings.limits.max_order_size == 50
    assert config.portfolio.max_exposure == {"BTC": Decimal(10)}


def test_mode_is_shadow_unless_written() -> None:
    assert load_text(GOOD.replace("mode: shadow, ", "")).service.mode is Mode.SHADOW
    assert load_text(GOOD.replace("mode: shadow", "mode: live")).service.mode is Mode.LIVE


def test_decimals_never_pass_through_a_float() -> None:
    text = GOOD.replace("size: 10}", "size: 0.10000000000000000555111512312578}")
    with pytest.raises(ConfigError, match="above max_order_size"):
        load_text(text.replace("size: 0.1}", "size: 50.000000000000000000001}"))
    assert str(load_text(text).profiles["perp"].size) == "0.10000000000000000555111512312578"


@pytest.mark.parametrize("written", ["2026-12-25", '"2026-12-25"', "20261225", '"20261225"'])
def test_every_spelling_of_a_day_is_the_same(written: str) -> None:
    config = load_text(GOOD.replace("expiries: {nearest: 2}", f"expiry: {written}"))
    assert isinstance(config.entries[1].target, Selection)
    assert [str(day) for day in config.entries[1].target.expiries] == ["2026-12-25"]
    assert config.effective["instruments"][1]["select"]["expiry"] == "2026-12-25"


def test_equal_content_has_an_equal_hash() -> None:
    same = GOOD.replace("max_position: 100,", 'max_position: "100",').replace("spread_bps: 10,", "spread_bps: 1_0.0e0,")
    same = same.replace("1_0.0e0", "10.0").replace("mode: shadow, ", "")
    assert load_text(same).sha256 == load_text(GOOD).sha256
    assert load_text(GOOD.replace("max_drawdown_usd: 5000", "max_drawdown_usd: 5001")).sha256 != load_text(GOOD).sha256


def test_an_entry_overrides_spread_limits_and_market_data() -> None:
    entry = (
        "spread: perp, size: 20, volatility: {multiplier: 2}, limits: {max_rejects: 3}, market_data: {stale_seconds: 3}"
    )
    text = GOOD.replace("spread: perp}", entry + "}").replace(
        "size: 10}", "size: 10, market_data: {max_jump_ticks: 7}}"
    )
    found = load_text(text + "market_data: {stale_seconds: 20, max_jump_ticks: 5, auto_resume: true}\n").entries
    assert found[0].settings.profile.size == 20
    assert found[0].settings.profile.volatility is not None
    assert found[0].settings.profile.volatility.slow_seconds == 300
    assert found[0].settings.limits.max_rejects == 3
    assert found[0].settings.data.stale_seconds == 3
    assert found[0].settings.data.max_jump_ticks == 7
    assert found[1].settings.data.stale_seconds == 20
    assert found[1].settings.data.max_jump_ticks == 5
    assert found[1].settings.data.auto_resume


def test_anchors_and_merge_keys_work() -> None:
    text = GOOD.replace("  perp:    {", "  perp: &base {").replace(
        "  options: {fair: mid,", "  options: {<<: *base, fair: mid,"
    )
    assert load_text(text).profiles["options"].skew_bps == 5
    assert load_text(text).profiles["options"].fair is Fair.MID


@pytest.mark.parametrize("path", CASES, ids=lambda path: str(path.relative_to(BAD)))
def test_bad_file(path: Path) -> None:
    """Each bad file gives exactly the lines of the .expected beside it."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = [line.replace(f"{path.parent}/", "") for line in caught.value.lines]
    assert lines == path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", [ROOT / "etc/mmd.yaml", *sorted((ROOT / "etc/examples").glob("*.yaml"))], ids=str)
def test_shipped_files_load_and_survive_printing(path: Path) -> None:
    config = load(path)
    again = load_text(to_yaml(config))
    assert again.effective == config.effective
    assert again.sha256 == config.sha256
    assert again.entries == config.entries


def test_drop_ins_merge_in_name_order(tmp_path: Path) -> None:
    main = tmp_path / "mmd.yaml"
    main.write_text(GOOD)
    (tmp_path / "mmd.d").mkdir()
    (tmp_path / "mmd.d/20-second.yaml").write_text("service: {name: second}\n")
    (tmp_path / "mmd.d/10-first.yaml").write_text("service: {name: first, statistics_seconds: 5}\n")
    (tmp_path / "mmd.d/30-list.yaml").write_text(
        "instruments: [{exchange: deribit, symbol: BTC-PERPETUAL, spread: perp}]\n"
    )
    (tmp_path / "mmd.d/40-nothing.yaml").write_text("# nothing\n")
    (tmp_path / "mmd.d/.hidden.yaml").write_text("nonsense: [")
    (tmp_path / "mmd.d/note.txt").write_text("nonsense: [")
    config = load(main)
    assert config.service.name == "second"
    assert config.service.statistics_seconds == 5
    assert len(config.entries) == 1
    assert str(config.where("service.name")) == f"{tmp_path}/mmd.d/20-second.yaml:1:17"
    assert str(config.where("service.mode")).startswith(f"{main}:2:")
    assert len(config.files) == 5


def test_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    (tmp_path / "latin").write_bytes("version: 1\n# ä\xff".encode("latin-1"))
    for name, text in [
        ("none", "No such file"),
        (".", "is a directory"),
        ("pipe", "is not a regular file"),
        ("huge", "is larger than 512 KiB"),
        ("latin", "latin:2:3: \\(file\\): is not UTF-8: byte 0xe4"),
    ]:
        with pytest.raises(ConfigError, match=text):
            load(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "mmd.yaml").write_text(GOOD)
    (tmp_path / "mmd.yaml").chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load(tmp_path / "mmd.yaml")


def test_multiplying_aliases_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match=r"aliases expand to more than 100,000 values"):
        load_text("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "[" * 100_000, "{a: " * 5_000, '"\\UFFFFFFFF"', "%YAML 1." + "9" * 5_000 + "\n---\na", "- " * 3_000],
    ids=["self", "deep list", "deep map", "absurd escape", "absurd version", "deep sequence"],
)
def test_hostile_text_is_only_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        load_text(text)


WORDS = [
    *GOOD.split(),
    "&a",
    "*a",
    "<<:",
    "!!python/object:os.system",
    "\t",
    "---",
    "...",
    "|",
    ">",
    "%",
    "@",
    "1e99",
    "0x1",
]


@settings(max_examples=150, deadline=None)
@example("\ud800")
@example("\x00")
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
        st.lists(st.sampled_from(GOOD.splitlines()), max_size=20).map("\n".join),
    )
)
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        load_text(text)
    except ConfigError as error:
        assert error.lines
        assert all(line.startswith("mmd.yaml:") for line in error.lines)


NUMBERS = st.one_of(
    st.integers(-10, 10**6),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.sampled_from(["10%", "1s", ".inf", "[]", "{}", "[1]", "{a: 1}", "2026-12-25"]),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([line for line in GOOD.split() if line.endswith((",", "}"))]), NUMBERS)
def test_no_value_raises_anything_else(word: str, value: object) -> None:
    """Any value in the place of any value: loaded, or refused in words."""
    text = GOOD.replace(word, f"{value}{word.lstrip('0123456789abcdefghijklmnopqrstuvwxyz_.-')}", 1)
    try:
        load_text(text)
    except ConfigError as error:
        assert error.lines


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path)


def test_a_flood_of_findings_is_counted() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text("".join(f"key{number}: 1\n" for number in range(1500)))
    assert len(caught.value.lines) == 1001
    assert caught.value.lines[-1] == "mmd.yaml:1:1: (file): and 505 more findings"
