"""A pickle read as a description of what it would make. Nothing is looked up, imported or called.

The stream is a program for a small stack machine (https://docs.python.org/3/library/pickletools.html). The
one here knows the instructions by which `pickle.Pickler` writes protocols 2 to 5, and no other. A global is
its name, a call is the record of its function and its arguments, and what no reader of weights asks for
(numbers with fractions, bytes, members of lists and sets) is passed over unread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

STREAM_LIMIT = 32 << 20
"""Bytes of a stream: some 300,000 tensors. Readers refuse longer ones before they read them."""
ROOM = 2_000_000
"""What a stream may make, in instructions: what it makes in memory grows with them, to 100 bytes each."""

_TEXT_LIMIT = 4096
"""Bytes of a text that is kept: a tensor's name has 1,024 characters at most."""
_LARGE = 3
"""What a new table or name takes: as much as so many other records."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global: a function or class, by name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Unread:
    """A value of which only the kind is kept."""

    kind: str


@dataclass(slots=True, eq=False)
class Made:
    """What a call would make."""

    of: object
    """A Name, in pickles that a Pickler wrote."""
    arguments: object
    changed: bool = False
    """Whether the pickle would set its state, or add members to it: neither is kept."""


@dataclass(slots=True, eq=False)
class Table:
    """A dict, OrderedDict or defaultdict."""

    named: dict[str, object] = field(default_factory=dict)
    """The values whose keys are text."""
    others: int = 0
    """How many have other keys."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A persistent id: where something lies outside of the stream."""

    id: object


def interpret(content: bytes | bytearray) -> tuple[object, tuple[Stored, ...]]:
    """What the pickle describes, and every persistent id in it.

    A value is None, a bool, an int, a str, a tuple of values, or one of the records of this module. They may
    hold themselves, and nest as deeply as the stream is long: nobody may walk, print, compare or hash one.
    Raises ValueError for a stream that a Pickler does not write, and for one that would take much memory.
    """
    machine = _Machine(content)
    try:
        return machine.run(), tuple(machine.stored)
    except IndexError as error:
        raise ValueError(f"the instruction before byte {machine.at:,} takes what is not there") from error


_ORDERED, _DEFAULT = Name("collections", "OrderedDict"), Name("collections", "defaultdict")
_FRACTION, _BYTES, _LIST, _SET = Unread("a number"), Unread("bytes"), Unread("a list"), Unread("a set")
_LONG_TEXT, _NO_TEXT = Unread("a long text"), Unread("text that is no UTF-8")


class _Machine:
    """Reads one stream, instruction by instruction."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content
        self.at = 0
        self.room = ROOM
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: list[object] = []
        self.stored: list[Stored] = []

    def run(self) -> object:
        """The value at the end of the stream."""
        if self.content[:1] != b"\x80" or self.content[1] not in range(2, 6):
            raise ValueError("it does not begin as protocols 2 to 5 do")
        self.at = 2
        while (opcode := self.content[self.at]) != _STOP:
            instruction = _INSTRUCTIONS.get(opcode)
            if instruction is None:
                raise ValueError(
                    f"byte {self.at:,}: {bytes([opcode])!a} is no instruction that torch.save writes"
                )
            self.at += 1
            self.spend(1)
            instruction(self)
        if self.at + 1 != len(self.content) or len(self.stack) != 1 or self.marks:
            raise ValueError("it does not end where its value is complete")
        return self.stack[0]

    def spend(self, room: int) -> None:
        """Raise ValueError where the stream makes too much."""
        self.room -= room
        if self.room < 0:
            raise ValueError(f"it makes more than {ROOM:,} values")

    # The stream.

    def number(self, size: int, *, signed: bool = False) -> int:
        """The next bytes as a little-endian integer."""
        return int.from_bytes(self.skip(size), "little", signed=signed)

    def skip(self, size: int) -> bytes | bytearray:
        """The next bytes."""
        begin = self.passed(size)
        return self.content[begin : self.at]

    def passed(self, size: int) -> int:
        """Where the next bytes begin, which are passed over."""
        begin, self.at = self.at, self.at + size
        if not begin <= self.at <= len(self.content):
            raise ValueError(f"byte {begin:,}: {size:,} bytes are said to follow, and are not there")
        return begin

    def line(self) -> str:
        """The next bytes up to the end of the line."""
        end = self.content.find(b"\n", self.at, self.at + _TEXT_LIMIT)
        if end < 0:
            raise ValueError(f"byte {self.at:,}: no name of a global")
        found = self.skip(end - self.at).decode()
        self.at += 1
        return found

    # The stack.

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take a value from the stack. Raises IndexError for one that lies below the last mark."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def pop_marked(self) -> list[object]:
        """Take the last mark, and all values above it."""
        mark = self.marks.pop()
        found = self.stack[mark:]
        del self.stack[mark:]
        return found

    def top(self) -> object:
        """The value on top, which stays there."""
        self.push(top := self.pop())
        return top

    # Instructions.

    def text(self, size: int) -> None:
        if size > _TEXT_LIMIT:
            self.passed(size)
            self.push(_LONG_TEXT)
            return
        try:
            self.push(self.skip(size).decode())
        except UnicodeDecodeError:
            self.push(_NO_TEXT)

    def unread(self, kind: Unread, size: int = 0) -> None:
        self.passed(size)
        self.push(kind)

    def integer(self, size: int) -> None:
        if size > 8:
            self.unread(_FRACTION, size)
        else:
            self.push(self.number(size, signed=True))

    def table(self) -> None:
        self.spend(_LARGE)
        self.push(Table())

    def remember(self, index: int) -> None:
        if index > len(self.memo):
            raise ValueError(f"byte {self.at:,}: values are not numbered in their order")
        self.memo[index : index + 1] = [self.top()]

    def recall(self, index: int) -> None:
        self.push(self.memo[index])

    def tuple_of(self, count: int) -> None:
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(f"byte {self.at:,}: the name of a global is no text")  # noqa: TRY004 - as all others
        self.spend(_LARGE)
        self.push(Name(module, name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        count = len(arguments) if isinstance(arguments, tuple) else -1
        if (function == _ORDERED and count == 0) or (function == _DEFAULT and count == 1):
            self.table()  # empty: its entries follow
        else:
            self.push(Made(function, arguments))

    def call_with_names(self) -> None:
        self.pop()
        self.call()

    def persistent(self) -> None:
        self.stored.append(Stored(self.pop()))
        self.push(self.stored[-1])

    def set_state(self) -> None:
        self.pop()
        target = self.top()
        if isinstance(target, Made):
            target.changed = True
        elif not isinstance(target, Table | Unread):
            raise ValueError(f"byte {self.at:,}: a state for what has none")  # noqa: TRY004 - as all others

    def add_members(self, _members: object) -> None:
        target = self.top()
        if isinstance(target, Made):
            target.changed = True
        elif target is not _LIST and target is not _SET:
            raise ValueError(f"byte {self.at:,}: a member for what has none")

    def frozen(self) -> None:
        self.pop_marked()
        self.push(_SET)

    def add_entries(self, entries: list[object]) -> None:
        target = self.top()
        if isinstance(target, Made):
            target.changed = True
            return
        if not isinstance(target, Table) or len(entries) % 2:
            raise ValueError(f"byte {self.at:,}: an entry for what is no table")
        for key, value in zip(entries[::2], entries[1::2], strict=True):
            if not isinstance(key, str):
                target.others += 1
            elif key in target.named:
                raise ValueError(f"the key {key[:100]!a} is given twice")
            else:
                target.named[key] = value

    def drop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()


_STOP = ord(".")
_INSTRUCTIONS: Mapping[int, Callable[[_Machine], object]] = MappingProxyType(
    {
        ord("N"): lambda m: m.push(None),
        0x88: lambda m: m.push(True),  # noqa: FBT003 - the value
        0x89: lambda m: m.push(False),  # noqa: FBT003 - the value
        ord("K"): lambda m: m.push(m.number(1)),
        ord("M"): lambda m: m.push(m.number(2)),
        ord("J"): lambda m: m.push(m.number(4, signed=True)),
        0x8A: lambda m: m.integer(m.number(1)),
        0x8B: lambda m: m.integer(m.number(4)),
        ord("G"): lambda m: m.unread(_FRACTION, 8),
        0x8C: lambda m: m.text(m.number(1)),
        ord("X"): lambda m: m.text(m.number(4)),
        0x8D: lambda m: m.text(m.number(8)),
        ord("C"): lambda m: m.unread(_BYTES, m.number(1)),
        ord("B"): lambda m: m.unread(_BYTES, m.number(4)),
        0x8E: lambda m: m.unread(_BYTES, m.number(8)),
        0x96: lambda m: m.unread(_BYTES, m.number(8)),
        ord("]"): lambda m: m.unread(_LIST),
        0x8F: lambda m: m.unread(_SET),
        ord("}"): lambda m: m.table(),
        ord("("): lambda m: m.marks.append(len(m.stack)),
        ord(")"): lambda m: m.push(()),
        0x85: lambda m: m.tuple_of(1),
        0x86: lambda m: m.tuple_of(2),
        0x87: lambda m: m.tuple_of(3),
        ord("t"): lambda m: m.push(tuple(m.pop_marked())),
        0x91: lambda m: m.frozen(),
        ord("a"): lambda m: m.add_members(m.pop()),
        ord("e"): lambda m: m.add_members(m.pop_marked()),
        0x90: lambda m: m.add_members(m.pop_marked()),
        ord("s"): lambda m: m.add_entries([m.pop(), m.pop()][::-1]),
        ord("u"): lambda m: m.add_entries(m.pop_marked()),
        ord("q"): lambda m: m.remember(m.number(1)),
        ord("r"): lambda m: m.remember(m.number(4)),
        0x94: lambda m: m.remember(len(m.memo)),
        ord("h"): lambda m: m.recall(m.number(1)),
        ord("j"): lambda m: m.recall(m.number(4)),
        ord("c"): lambda m: m.name(m.line(), m.line()),
        0x93: lambda m: m.name(*reversed([m.pop(), m.pop()])),
        ord("R"): lambda m: m.call(),
        0x81: lambda m: m.call(),
        0x92: lambda m: m.call_with_names(),
        ord("b"): lambda m: m.set_state(),
        ord("Q"): lambda m: m.persistent(),
        ord("0"): lambda m: m.drop(),
        ord("1"): lambda m: m.pop_marked(),
        0x95: lambda m: m.passed(8),
    }
)
"""By opcode. Frames (0x95) only tell how much to read ahead."""
