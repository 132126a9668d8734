"""How `mmd run` begins and ends when something is wrong: exit statuses 64, 70, 77, 78, and clear words."""

import os
import signal
import socket
import stat
from pathlib import Path

import pytest
from house import MMD, Daemon, Exchange, Program, write_config

HUGE_RIGHTS = "the tests run as root, whom no file's mode stops, and setpriv is missing"


def humble() -> list[str]:
    """A prefix that makes root obey file modes; empty for anybody else."""
    if os.geteuid() != 0:
        return []
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip(HUGE_RIGHTS)
    return ["/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def shut(path: Path) -> Path:
    """Take all rights away: also from its owner, who is us."""
    path.chmod(0)
    return path


def fails(programs: list[Program], *daemons: Daemon) -> list[tuple[int, str]]:
    """Exit status and last words of daemons that do not come up."""
    programs += daemons
    return [(daemon.ended(), daemon.err) for daemon in daemons]


def test_wrong_usage_is_64(tmp_path: Path) -> None:
    program = Program([*MMD, "run", "--speed", "9"], tmp_path, "mmd")
    assert program.ended() == 64
    assert "--speed" in program.err and program.out == ""


def test_an_instrument_that_the_exchange_does_not_list_is_78(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml", symbols=["BTC-PERPETUAL", "BTC-PERPETUALLY"])
    ((status, words),) = fails(programs, Daemon(tmp_path, config))
    assert (status, "instruments[1]" in words and "BTC-PERPETUALLY" in words) == (78, True), words
    assert "Traceback" not in words


def test_every_error_of_a_file_comes_at_once_with_its_place(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml")
    text = config.read_text().replace("mode: shadow", "mode: shady").replace("style: around", "style: square")
    config.write_text(text)
    ((status, words),) = fails(programs, Daemon(tmp_path, config))
    lines = [line for line in words.splitlines() if line.startswith(f"{config}:")]
    assert (status, len(lines)) == (78, 2), words
    assert "shady" in lines[0] and "shadow" in lines[0] and "square" in lines[1]


def test_a_size_that_the_instrument_does_not_take_is_78(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml")
    config.write_text(config.read_text().replace("size: 10,", "size: 1,"))
    ((status, words),) = fails(programs, Daemon(tmp_path, config))
    assert (status, "spreads.wide.size" in words and "at least 10" in words) == (78, True), words


def test_an_unreadable_configuration_is_78(tmp_path: Path, programs: list[Program]) -> None:
    config = shut(write_config(tmp_path / "mmd.yaml"))
    ((status, words),) = fails(programs, Daemon(tmp_path, config, prefix=humble()))
    assert (status, "Permission denied" in words) == (78, True), words


def with_secret_file(tmp_path: Path, mode: int) -> Path:
    secret = tmp_path / "secret"
    secret.write_text("hunter2-hunter2\n")
    secret.chmod(mode)
    config = write_config(tmp_path / "mmd.yaml", network='{url: "ws://203.0.113.1:9/ws/api/v2"}')
    config.write_text(config.read_text().replace("{env: E2E_SECRET}", f"{{file: {secret}}}"))
    return config


def test_a_secret_that_others_can_read_is_77(tmp_path: Path, programs: list[Program]) -> None:
    ((status, words),) = fails(programs, Daemon(tmp_path, with_secret_file(tmp_path, 0o644)))
    assert (status, "0644" in words and "chmod" in words) == (77, True), words
    assert "hunter2" not in words


def test_a_secret_that_we_cannot_read_is_77(tmp_path: Path, programs: list[Program]) -> None:
    ((status, words),) = fails(programs, Daemon(tmp_path, with_secret_file(tmp_path, 0), prefix=humble()))
    assert (status, "secret" in words) == (77, True), words


def test_folders_that_we_may_not_write_are_77(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    ended = fails(
        programs,
        Daemon(tmp_path, config, state=closed / "state", prefix=humble()),
        Daemon(tmp_path, config, socket=closed / "mmd.sock", state=tmp_path / "other", prefix=humble()),
    )
    for status, words in ended:
        assert (status, str(closed) in words) == (77, True), words


def test_a_state_folder_that_is_a_file_is_70(tmp_path: Path, programs: list[Program]) -> None:
    (tmp_path / "file").write_text("")
    ((status, words),) = fails(programs, Daemon(tmp_path, write_config(tmp_path / "mmd.yaml"), state=tmp_path / "file"))
    assert (status, str(tmp_path / "file") in words) == (70, True), words
    assert "Traceback" not in words


def test_one_daemon_per_state_folder_and_per_socket(tmp_path: Path, programs: list[Program]) -> None:
    config = write_config(tmp_path / "mmd.yaml")
    first = Daemon(tmp_path, config)
    programs.append(first)
    first.ready()
    by_state, by_socket = fails(
        programs,
        Daemon(tmp_path, config, socket=tmp_path / "other.sock"),
        Daemon(tmp_path, config, state=tmp_path / "other"),
    )
    assert (by_state[0], "another mmd uses this state directory" in by_state[1]) == (70, True), by_state
    assert (by_socket[0], str(first.socket) in by_socket[1]) == (70, True), by_socket
    assert first.status()["phase"] == "running"  # and the first one never noticed
    assert stat.S_ISSOCK(first.socket.stat().st_mode)
    first.kill()
    again = Daemon(tmp_path, config)  # what a dead daemon left behind is no obstacle
    programs.append(again)
    assert again.ready().stop() == 0


def test_a_metrics_address_that_is_taken_is_named(tmp_path: Path, programs: list[Program]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write_config(tmp_path / "mmd.yaml")
        config.write_text(config.read_text().replace("127.0.0.1:0", address))
        ((status, words),) = fails(programs, Daemon(tmp_path, config))
    assert (status, f"service.metrics.listen (null: no metrics): Address already in use: '{address}'" in words) == (
        70,
        True,
    )
    assert "Traceback" not in words


def test_a_key_that_the_exchange_does_not_know_is_77(tmp_path: Path, programs: list[Program]) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text('[{"client_id": "somebody", "client_secret": "else-entirely"}]')
    exchange = Exchange(tmp_path, "--accounts", str(accounts), "--market", "generated")
    programs.append(exchange)
    config = write_config(tmp_path / "mmd.yaml", network=f'{{url: "{exchange.url}"}}')
    ((status, words),) = fails(programs, Daemon(tmp_path, config))
    assert (status, "13004" in words) == (77, True), words
    assert "not-a-real-secret" not in words and "Traceback" not in words
    assert exchange.stop() == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path, programs: list[Program]) -> None:
    """The first one waits for the exchange's word on the orders; a stopped exchange gives none."""
    exchange = Exchange(tmp_path)
    config = write_config(tmp_path / "mmd.yaml", mode="live", network=f'{{url: "{exchange.url}"}}')
    daemon = Daemon(tmp_path, config)
    programs += [exchange, daemon]
    daemon.ready().start_quoting()
    exchange.process.send_signal(signal.SIGSTOP)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.until(lambda: daemon.status()["phase"] == "stopping", "the first signal's effect")
    assert daemon.alive
    assert daemon.stop(seconds=5) == 70
    assert not daemon.socket.exists()
    exchange.process.send_signal(signal.SIGCONT)
    exchange.until(lambda: not exchange.open_orders(), "cancel on disconnect")


def test_orders_that_nobody_can_ask_about_are_said_and_are_no_success(tmp_path: Path, programs: list[Program]) -> None:
    exchange = Exchange(tmp_path)
    config = write_config(tmp_path / "mmd.yaml", mode="live", network=f'{{url: "{exchange.url}"}}')
    daemon = Daemon(tmp_path, config)
    programs += [exchange, daemon]
    daemon.ready()
    exchange.kill()
    daemon.until(lambda: not daemon.status()["exchanges"][0]["trade_link"], "the loss")
    assert daemon.stop() == 70
    assert "service.stopped orders_left=" in daemon.err and "deribit: None" not in daemon.err
    assert "unknown" in daemon.err


def test_help_goes_to_the_screen(tmp_path: Path) -> None:
    program = Program([*MMD, "run", "--help"], tmp_path, "mmd")
    assert (program.ended(), program.err) == (0, "")
    assert "--state-dir" in program.out
