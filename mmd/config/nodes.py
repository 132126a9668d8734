"""YAML text to a tree of nodes that know their place in the file; nothing is interpreted yet.

Built from PyYAML's events instead of its constructors, so that numbers keep their exact text,
every finding has its line and column, and neither deep nesting nor multiplying aliases cost
more than reading the file.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import yaml

DEPTH_MAX = 32
VALUES_MAX = 100_000
TOP = "(top)"
NO_KEY = ""

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)?(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?")
NUMBER_LENGTH_MAX = 40
WORD_MAX = 60
SIMPLE_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{WORD_MAX}}}")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where something stands; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Finding(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong, and where."""

    place: Place
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path or TOP}: {self.text}"


class ScalarNode(msgspec.Struct, frozen=True):
    """A scalar's exact text; `plain`: written without quotes."""

    place: Place
    text: str
    plain: bool
    size: int = 1


class ListNode(msgspec.Struct, frozen=True):
    place: Place
    items: tuple["Node", ...]
    size: int


class MapNode(msgspec.Struct, frozen=True):
    """`keys` holds the place of each key."""

    place: Place
    entries: dict[str, "Node"]
    keys: dict[str, Place]
    size: int


Node = ScalarNode | ListNode | MapNode
Step = str | int


def join(path: str, step: Step) -> str:
    """`instruments[1].limits` style paths; keys that are no plain words are quoted."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    word = step if SIMPLE_KEY.fullmatch(step) else repr(step[:WORD_MAX])
    return f"{path}.{word}" if path else word


def value_of(node: Node) -> Any:
    """The node's plain value: dict, list, str, bool, None, int or an exact Decimal.

    Only plain scalars become anything but text; `yes`, `on`, `1:30`, `0x10` and `010` stay text
    and are refused wherever a number or a switch is wanted.
    """
    match node:
        case MapNode(entries=entries):
            return {key: value_of(child) for key, child in entries.items()}
        case ListNode(items=items):
            return [value_of(child) for child in items]
        case ScalarNode(text=text, plain=True):
            return _plain_value(text)
        case ScalarNode(text=text):
            return text


def _plain_value(text: str) -> bool | int | Decimal | str | None:
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if len(text) > NUMBER_LENGTH_MAX:
        return text
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and any(digit in text.lower().partition("e")[0] for digit in "0123456789"):
        return Decimal(text)
    return text


class _Stop(Exception):
    """The rest of the file cannot be read; the finding says why."""


class _Frame:
    """A mapping or a sequence that is still open."""

    def __init__(self, place: Place, anchor: str | None, is_map: bool, path: str) -> None:
        self.place = place
        self.anchor = anchor
        self.is_map = is_map
        self.path = path
        self.items: list[Node] = []
        self.entries: dict[str, Node] = {}
        self.keys: dict[str, Place] = {}
        self.merges: list[Node] = []
        self.key: str | None = None  # the key whose value comes next
        self.is_merge = False
        self.key_place = place

    def child_path(self) -> str:
        if not self.is_map:
            return join(self.path, len(self.items))
        return self.path if self.key is None or self.is_merge else join(self.path, self.key)


class _Builder:
    """Folds parser events into nodes; collects findings instead of raising."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.frames: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.documents = 0
        self.root: Node | None = None

    def place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1) if mark is not None else Place(self.file, 1, 1)

    def path(self) -> str:
        return self.frames[-1].child_path() if self.frames else ""

    def find(self, place: Place, text: str) -> None:
        self.findings.append(Finding(place, self.path(), text))

    def take(self, event: yaml.Event) -> None:
        place = self.place(event)
        if getattr(event, "tag", None) is not None:
            self.find(place, "a YAML tag (!…) is not allowed here; write the plain value")
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self.find(place, "a second document starts here; one file holds one document")
                    raise _Stop
            case yaml.AliasEvent():
                self.add(self.alias(event, place))
            case yaml.ScalarEvent():
                node = ScalarNode(place, event.value, event.style is None)
                if not event.value.isprintable():
                    self.find(place, "holds a line break or another character that cannot be printed")
                if event.anchor:
                    self.anchors[event.anchor] = node
                self.add(node)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.open(event, place)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.close()

    def alias(self, event: yaml.AliasEvent, place: Place) -> Node:
        name = event.anchor
        if any(frame.anchor == name for frame in self.frames):
            self.find(place, f"the alias *{name} stands inside its own anchor; it would never end")
            raise _Stop
        if name not in self.anchors:
            self.find(place, f"the alias *{name} has no anchor &{name} before it")
            raise _Stop
        return self.anchors[name]

    def open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, place: Place) -> None:
        if len(self.frames) >= DEPTH_MAX:
            self.find(place, f"nested more than {DEPTH_MAX} deep")
            raise _Stop
        self.frames.append(_Frame(place, event.anchor, isinstance(event, yaml.MappingStartEvent), self.path()))

    def close(self) -> None:
        frame = self.frames.pop()
        node: Node
        if frame.is_map:
            for source in frame.merges:
                self.merge(frame, source)
            size = 1 + sum(child.size for child in frame.entries.values())
            node = MapNode(frame.place, frame.entries, frame.keys, size)
        else:
            node = ListNode(frame.place, tuple(frame.items), 1 + sum(child.size for child in frame.items))
        if node.size > VALUES_MAX:
            self.findings.append(
                Finding(frame.place, frame.path, f"its aliases expand to more than {VALUES_MAX:,} values")
            )
            raise _Stop
        if frame.anchor:
            self.anchors[frame.anchor] = node
        self.add(node)

    def merge(self, frame: _Frame, source: Node) -> None:
        """`<<`: keys of the mapping win, then the first source that has them."""
        sources = source.items if isinstance(source, ListNode) else (source,)
        for each in sources:
            if not isinstance(each, MapNode):
                self.findings.append(
                    Finding(source.place, frame.path, "<< takes a mapping or a list of mappings, as in <<: *name")
                )
                continue
            for key, child in each.entries.items():
                if key not in frame.entries:
                    frame.entries[key] = child
                    frame.keys[key] = each.keys[key]

    def add(self, node: Node) -> None:
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        if not frame.is_map:
            frame.items.append(node)
        elif frame.key is None:
            self.set_key(frame, node)
        else:
            self.set_value(frame, frame.key, node)

    def set_key(self, frame: _Frame, node: Node) -> None:
        if not isinstance(node, ScalarNode) or node.text == "":
            self.find(node.place, "a key must be a word")
            frame.key = NO_KEY
            return
        frame.key = node.text
        frame.key_place = node.place
        frame.is_merge = node.plain and node.text == "<<"

    def set_value(self, frame: _Frame, key: str, node: Node) -> None:
        if frame.is_merge:
            frame.merges.append(node)
        elif key == NO_KEY:
            pass  # reported with the key
        elif key in frame.entries:
            self.find(frame.key_place, f"duplicate key; it stands in line {frame.keys[key].line} already")
        else:
            frame.entries[key] = node
            frame.keys[key] = frame.key_place
        frame.key = None
        frame.is_merge = False


def parse(text: str, file: str) -> tuple[Node | None, list[Finding]]:
    """The root node of one YAML document and everything wrong with its form.

    The root is None where the document is empty or could not be read to its end.
    """
    builder = _Builder(file)
    try:
        for event in _events(text):
            builder.take(event)
    except _Stop:
        return None, builder.findings
    except yaml.YAMLError as error:
        return None, [*builder.findings, _syntax_finding(error, text, file)]
    except (ValueError, OverflowError) as error:  # PyYAML lets chr() and int() speak for absurd escapes and versions
        return None, [*builder.findings, Finding(Place(file, 1, 1), "", f"not YAML: {error}")]
    root = builder.root
    if isinstance(root, ScalarNode) and root.plain and root.text == "":
        root = None
    return root, builder.findings


def _events(text: str) -> Iterator[yaml.Event]:
    yield from yaml.parse(text, Loader=yaml.SafeLoader)


def _syntax_finding(error: yaml.YAMLError, text: str, file: str) -> Finding:
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = Place(file, before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1)
        code = error.character if isinstance(error.character, int) else 0
        return Finding(place, "", f"not YAML: the character U+{code:04X} is not allowed; write it as an escape")
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        place = Place(file, mark.line + 1, mark.column + 1)
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in (error.problem or ""):
            return Finding(place, "", "not YAML: a tab; indent with spaces")
        context = f" ({error.context})" if error.context else ""
        return Finding(place, "", f"not YAML: {error.problem}{context}")
    return Finding(Place(file, 1, 1), "", f"not YAML: {error}")


def overlay(base: Node, over: Node) -> Node:
    """A drop-in over a base: maps merge, everything else is replaced."""
    if not isinstance(base, MapNode) or not isinstance(over, MapNode):
        return over
    entries = dict(base.entries)
    keys = dict(base.keys)
    for key, child in over.entries.items():
        entries[key] = overlay(entries[key], child) if key in entries else child
        keys[key] = over.keys[key]
    return MapNode(base.place, entries, keys, 1 + sum(child.size for child in entries.values()))


def place_at(root: Node, path: list[Step]) -> Place:
    """The place of the value at `path`, or of the nearest value above it that exists."""
    node = root
    for step in path:
        child: Node | None = None
        if isinstance(node, MapNode) and isinstance(step, str):
            child = node.entries.get(step)
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            child = node.items[step]
        if child is None:
            break
        node = child
    return node.place


def key_place(root: Node, path: list[Step], key: str) -> Place:
    """The place of a key in the mapping at `path`."""
    node = root
    for step in path:
        if isinstance(node, MapNode) and isinstance(step, str):
            node = node.entries[step]
        elif isinstance(node, ListNode) and isinstance(step, int):
            node = node.items[step]
    if isinstance(node, MapNode) and key in node.keys:
        return node.keys[key]
    return node.place
