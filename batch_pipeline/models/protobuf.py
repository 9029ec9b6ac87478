"""The wire format of protobuf messages, as far as it takes to find a field. What the fields mean is known elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}


class Unreadable(Exception):
    """The bytes are no message, or one with more fields, or other kinds of them, than are read here."""


@dataclass(frozen=True)
class Field:
    """One field of a message. Its bytes are [start, end) of the data, those of its value [value, end)."""

    number: int
    wire: int
    start: int
    value: int
    end: int


class Message:
    """Reads fields of one message and of those inside it, of at most `most` in all, so that it ends soon."""

    def __init__(self, data: bytes, most: int) -> None:
        self.data = data
        self._left = most

    def fields(self, within: Field | None = None) -> Iterator[Field]:
        """The fields of the message that a field holds, or of the outermost. Raises Unreadable."""
        at, end = (0, len(self.data)) if within is None else (_length_delimited(within).value, within.end)
        while at < end:
            if self._left <= 0:
                raise Unreadable("too many fields")
            self._left -= 1
            field = self._field(at, end)
            yield field
            at = field.end

    def bytes_of(self, field: Field) -> bytes:
        """Raises Unreadable where the field has no bytes."""
        return self.data[_length_delimited(field).value : field.end]

    def holds(self, field: Field, word: bytes) -> bool:
        """Whether the word is anywhere in the field's value."""
        return self.data.find(word, field.value, field.end) >= 0

    def text(self, field: Field) -> str:
        try:
            return self.bytes_of(field).decode()
        except UnicodeDecodeError as error:
            raise Unreadable("a text is not UTF-8") from error

    def integers(self, field: Field) -> list[int]:
        """The int64 numbers of a repeated field: one, or several where they are packed."""
        if field.wire == VARINT:
            return [_signed(self._varint(field.value, field.end)[0])]
        numbers, at = [], _length_delimited(field).value
        while at < field.end:
            if self._left <= 0:
                raise Unreadable("too many numbers")
            self._left -= 1
            number, at = self._varint(at, field.end)
            numbers.append(_signed(number))
        return numbers

    def _field(self, start: int, end: int) -> Field:
        tag, value = self._varint(start, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise Unreadable("no field has this number")
        if wire == VARINT:
            stop = self._varint(value, end)[1]
        elif wire == BYTES:
            size, value = self._varint(value, end)
            stop = value + size
        elif wire in _FIXED:
            stop = value + _FIXED[wire]
        else:
            raise Unreadable("a group, or no kind of field")
        if stop > end:
            raise Unreadable("a field ends after its message")
        return Field(number, wire, start, value, stop)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number and where the next byte is."""
        number = 0
        for place in range(10):
            if at + place >= end:
                raise Unreadable("a number has no end")
            byte = self.data[at + place]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if number >= 2**64:
                    break
                return number, at + place + 1
        raise Unreadable("a number has more than 64 bits")


def field(number: int, value: bytes) -> bytes:
    """A field with these bytes for its value, as they stand in a message."""
    return _number((number << 3) | BYTES) + _number(len(value)) + value


def _number(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _length_delimited(field: Field) -> Field:
    if field.wire != BYTES:
        raise Unreadable("a field is of another kind than it should be")
    return field
