"""Files to a Config, or to everything that is wrong with all of them at once.

    config = load(Path("/etc/mmd/mmd.yaml"))

Drop-ins `mmd.d/*.yaml` beside the file are merged over it in order of their names.
"""

from pathlib import Path

from mmd.config.build import build
from mmd.config.files import NotReadable, read_regular
from mmd.config.meaning import check_meaning
from mmd.config.model import Config
from mmd.config.nodes import Finding, MapNode, Node, Place, overlay, parse, value_of
from mmd.config.validate import outside, validate
from mmd.domain.errors import ConfigError

DROP_INS = "mmd.d"
FILE_BYTES_MAX = 512 * 1024
FILES_MAX = 100
LINES_MAX = 1000


def load(path: Path) -> Config:
    """The configuration at `path` with its drop-ins. Raises ConfigError with one line for each finding."""
    texts: list[tuple[str, str]] = []
    findings: list[Finding] = []
    for file in [path, *_drop_ins(path, findings)]:
        text = _read(file)
        if isinstance(text, Finding):
            findings.append(text)
        else:
            texts.append((str(file), text))
    main_is_read = bool(texts) and texts[0][0] == str(path)
    return _load(texts, findings, main_is_read=main_is_read)


def load_text(text: str, file: str = "mmd.yaml", drop_ins: tuple[tuple[str, str], ...] = ()) -> Config:
    """The same from text in memory; `drop_ins` are (name, text)."""
    return _load([(file, text), *drop_ins], [], main_is_read=True)


def _load(texts: list[tuple[str, str]], findings: list[Finding], *, main_is_read: bool) -> Config:
    root: Node | None = None
    for index, (file, text) in enumerate(texts):
        node, wrong = parse(text, file)
        findings += wrong
        is_main = main_is_read and index == 0
        if node is not None and not isinstance(node, MapNode):
            findings.append(Finding(node.place, "", "is no mapping; allowed: the keys version, service, exchanges, …"))
        elif node is not None:
            root = overlay(root, node) if root is not None else node
        elif is_main and not wrong:
            findings.append(outside(file, "is empty; allowed: version, exchanges, spreads, instruments, limits"))
        if is_main and root is None:
            main_is_read = False
    if root is not None and main_is_read:
        data = value_of(root)
        findings += validate(data, root)
        findings += check_meaning(data, root)
        if not findings:
            return build(data, root, tuple(file for file, _ in texts))
    raise ConfigError(_lines(findings, [file for file, _ in texts]))


def _lines(findings: list[Finding], files: list[str]) -> list[str]:
    """Each finding once, file by file from top to bottom."""
    order = {file: index for index, file in enumerate(files)}

    def rank(finding: Finding) -> tuple[int, Place, str, str]:
        return order.get(finding.place.file, -1), finding.place, finding.path, finding.text

    found = sorted(set(findings), key=rank)
    lines = [str(finding) for finding in found[:LINES_MAX]]
    if len(found) > LINES_MAX:
        lines.append(str(outside(found[-1].place.file, f"and {len(found) - LINES_MAX} more findings")))
    return lines


def _drop_ins(path: Path, findings: list[Finding]) -> list[Path]:
    directory = path.parent / DROP_INS
    try:
        files = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        findings.append(outside(str(directory), f"cannot be read: {error}"))
        return []
    files = [file for file in files if file.suffix == ".yaml" and not file.name.startswith(".")]
    if len(files) > FILES_MAX:
        findings.append(outside(str(directory), f"holds {len(files)} files; allowed: at most {FILES_MAX}"))
        return []
    return files


def _read(path: Path) -> str | Finding:
    """A file's text, or what is wrong with the file."""
    try:
        content, _ = read_regular(path, FILE_BYTES_MAX)
    except PermissionError:
        return outside(str(path), "cannot be read: Permission denied; allowed: a file this user may read")
    except NotReadable as error:
        return outside(str(path), f"{error}; allowed: a YAML file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode("utf-8")) + 1
        place = Place(str(path), before.count(b"\n") + 1, column)
        return Finding(place, "(file)", f"is not UTF-8: byte 0x{content[error.start]:02x}; allowed: UTF-8 text")
