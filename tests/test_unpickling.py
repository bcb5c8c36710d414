"""The unpickler: what it reads, and that nothing else comes out of a pickle or is carried out."""

import os
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pickles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsim.data.pickled_arrays import PickledArray, PickleRefusedError
from flowsim.data.unpickling import unpickle


def refused(content):
    with pytest.raises(PickleRefusedError) as caught:
        unpickle(content)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 200 and message.isprintable()
    return message


# What is read

KEYS = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.integers(-(2**63), 2**63))
PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
    ),
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_containers_come_out_as_they_went_in(value, protocol):
    # As text, since nan is not equal to itself.
    assert repr(unpickle(pickle.dumps(value, protocol))) == repr(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "values",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(5, dtype=">i4")[::-1],
        np.array([True, False]),
        np.array(1.5, np.float32),
        np.zeros((0, 3)),
    ],
)
def test_arrays_of_every_protocol(values, protocol):
    (read, again) = unpickle(pickle.dumps((values, values), protocol))
    assert read is again and isinstance(read, PickledArray)
    np.testing.assert_array_equal(read.values, values)
    assert read.values.dtype == values.dtype


def test_arrays_of_python_2():
    values = np.arange(300, dtype="<u2").reshape(2, 150)
    read = unpickle(b"\x80\x02" + pickles.array(values) + b".")
    np.testing.assert_array_equal(read.values, values)


def test_lists_that_hold_themselves():
    loop: list = []
    loop.append(loop)
    read = unpickle(pickle.dumps(loop))
    assert read[0] is read


# What would be carried out


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("hostile", "name"),
    [
        (Calls(os.system, "touch pwned"), "system"),
        (Calls(eval, "1"), "eval"),
        (Calls(getattr, Calls(__import__, "os"), "system"), "getattr"),
        (Calls(np.load, "file.npy"), "load"),
        (Calls(np.fromfile, "file"), "fromfile"),
        (Calls(Calls, print), "Calls"),
        (Calls(np.frombuffer, b"1"), "frombuffer"),
        ([1, {"a": (2, Calls(os.system, "touch pwned"))}], "system"),
        (np.float64(1.0), "scalar"),
        (len, "len"),
        (KeyError("a"), "KeyError"),
    ],
)
def test_no_name_but_those_of_arrays(hostile, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name in refused(pickle.dumps(hostile, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("admitted", [np.dtype, np.ndarray])
def test_a_name_that_is_admitted_is_nothing_that_can_be_called(admitted):
    assert not callable(unpickle(pickle.dumps(admitted)))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"
NEW_ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85U\x01b\x87R"
U1 = DTYPE + b"U\x02u1K\x00K\x01\x87R"
HUGE = b"\x8a\x06" + (2**40).to_bytes(6, "little")


REFUSED = {
    # Instructions that make objects in other ways.
    "inst": (b"(S'true'\nios\nsystem\n.", "instruction"),
    "obj": (b"(cos\nsystem\nS'true'\no.", "refers to os.system"),
    "newobj": (DTYPE + b")\x81.", "instruction (NEWOBJ)"),
    "ext": (b"\x82\x01.", "instruction (EXT1)"),
    "persid": (b"Pname\n.", "instruction (PERSID)"),
    "binpersid": (b"NQ.", "instruction (BINPERSID)"),
    "buffer": (b"\x97.", "instruction (NEXT_BUFFER)"),
    "set": (b"\x8f.", "instruction (EMPTY_SET)"),
    # Names that look like those of arrays.
    "dotted": (b"\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "refers to numpy.ndarray.dump"),
    "module": (b"cnumpy.core.multiarray\nfrombuffer\n.", "refers to numpy.core.multiarray"),
    "spaces": (b"cnumpy core.multiarray\n_reconstruct\n.", "refers to"),
    "no text": (b"K\x01K\x02\x93.", "name that is no text"),
    # Calls of what is no function, and of functions with what is none of theirs.
    "call a number": (b"K\x01)R.", "calls what is no function"),
    "call a result": (NEW_ARRAY + b")R.", "calls what is no function"),
    "call with a list": (DTYPE + b"]R.", "calls what is no function"),
    "call ndarray": (NDARRAY + HUGE + b"\x85\x85R.", "unknown way"),
    "call reconstruct": (RECONSTRUCT + b")R.", "damaged"),
    "huge empty array": (RECONSTRUCT + NDARRAY + HUGE + b"\x85U\x01b\x87R.", "unknown way"),
    "array of a dtype": (RECONSTRUCT + DTYPE + b"K\x00\x85U\x01b\x87R.", "unknown way"),
    "array of a call": (RECONSTRUCT + U1 + b"K\x00\x85U\x01b\x87R.", "unknown way"),
    "encode otherwise": (b"c_codecs\nencode\n\x8c\x01a\x8c\x03zip\x86R.", "no bytes"),
    "huge bytes": (b"c__builtin__\nbytes\n" + HUGE + b"\x85R.", "damaged"),
    # Arrays of what is no number, or not of the size they say.
    "objects": (DTYPE + b"U\x02O8K\x00K\x01\x87R.", "array of 'O8', not of real numbers"),
    "text": (DTYPE + b"U\x02S9K\x00K\x01\x87R.", "array of 'S9'"),
    "records": (DTYPE + b"U\x05i1,u1K\x00K\x01\x87R.", "array of 'i1,u1'"),
    "long name": (DTYPE + b"U\xff" + 255 * b"u" + b"\x85R.", "array of ''"),
    "list as a type": (DTYPE + b"]\x85R.", "array of ''"),
    "fields": (U1 + b"(K\x03U\x01|N]}J\xff\xff\xff\xffK\x01K\x00tb.", "array of records"),
    "order": (U1 + b"(K\x03U\x01xNNNK\x00K\x00K\x00tb.", "array of records"),
    "huge shape": (NEW_ARRAY + b"(K\x01" + HUGE + b"\x85" + U1 + b"\x89U\x01atb.", "damaged"),
    "product": (NEW_ARRAY + b"(K\x01" + 7 * b"M\xff\xff" + b"t" + U1 + b"\x89U\x01atb.", ""),
    "too few bytes": (
        NEW_ARRAY + b"(K\x01K\x02\x85" + U1 + b"\x89U\x01atb.",
        "2 numbers",
    ),
    "negative": (NEW_ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + U1 + b"\x89U\x01atb.", "damaged"),
    "no dtype": (NEW_ARRAY + b"(K\x01K\x01\x85N\x89U\x01atb.", "description is damaged"),
    "list of bytes": (NEW_ARRAY + b"(K\x01K\x01\x85" + U1 + b"\x89]tb.", "description is"),
    "state of a list": (b"]Nb.", "state of what is no fresh array"),
    "state of a name": (NDARRAY + b"Nb.", "state of what is no fresh array"),
    "state of None": (NEW_ARRAY + b"Nb.", "state of what is no fresh array"),
    # Containers.
    "append to a tuple": (b")K\x01a.", "appends to what is no list"),
    "append to an array": (NEW_ARRAY + b"K\x01a.", "appends to what is no list"),
    "items of a list": (b"]K\x01K\x01s.", "items of what is no dictionary"),
    "odd items": (b"}(K\x01u.", "keys are no short text"),
    "tuple as a key": (b"})K\x01s.", "keys are no short text"),
    "long key": (b"}\x8d" + struct.pack("<Q", 1001) + 1001 * b"a" + b"K\x01s.", "keys are no"),
    "long integer as a key": (b"}\x8a\x20" + 32 * b"\x7f" + b"K\x01s.", "keys are no"),
    # Damage.
    "nothing": (b"", "damaged"),
    "no end": (b"]", "damaged"),
    "two objects": (b"]].", "does not end with one object"),
    "a mark": (b"(.", "does not end with one object"),
    "empty stack": (b".", "does not end with one object"),
    "pop of nothing": (b"0.", "damaged"),
    "no mark": (b"t.", "damaged"),
    "mark as a value": (b"](a.", "mark where a value should be"),
    "unknown memo": (b"h\x05.", "damaged"),
    "unknown instruction": (b"\xff.", "damaged"),
    "no number": (b"Iabc\n.", "damaged"),
    "no UTF-8": (b"\x8c\x01\xff.", "damaged"),
    "many digits": (b"I" + 5000 * b"1" + b"\n.", "damaged"),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_instructions_that_are_refused(content, expected):
    assert expected in refused(content)


# What would fill the memory


BOMBS = {
    "bytes": b"\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "more bytes than there can be": b"\x8e" + struct.pack("<Q", 2**63) + b"a.",
    "text": b"\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "bytearray": b"\x96" + struct.pack("<Q", 2**40) + b"a.",
    "old text": b"T" + struct.pack("<i", 2**31 - 1) + b"a.",
    "integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "frame": b"\x95" + struct.pack("<Q", 2**60) + b"(.",
    # The same text, encoded again and again.
    "encode": (
        b"c_codecs\nencode\nq\x01\x8d"
        + struct.pack("<Q", 10**5)
        + 10**5 * b"a"
        + b"\x8c\x06latin1\x86q\x02"
        + 10**4 * b"h\x01h\x02R"
        + b"."
    ),
    "marks": 3 * 10**5 * b"(" + b".",
    "lists": 3 * 10**5 * b"]" + b".",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_declared_sizes_and_repetitions_do_not_fill_the_memory(content):
    tracemalloc.start()
    refused(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 10**6


def test_a_place_in_the_memo_takes_no_room_for_those_before():
    assert unpickle(b"Nr\xff\xff\xff\xff.") is None


def test_tuples_that_double_at_every_level_are_made_once_and_never_hashed():
    level = b"q\x00h\x00\x86"  # (x, x)
    value = unpickle(b")" + 60 * level + b".")
    for _ in range(60):
        assert value[0] is value[1]
        value = value[0]
    refused(b"})" + 60 * level + b"Ns.")


def test_containers_within_containers_do_not_exhaust_the_interpreter():
    value = unpickle(100_000 * b"]" + 99_999 * b"a" + b".")
    assert len(value) == 1
    assert len(unpickle(b")" + 200_000 * b"\x85" + b".")) == 1


# Anything at all

GOOD = [
    pickle.dumps({"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2]}, protocol)
    for protocol in range(6)
] + [pickles.cifar_batch(np.zeros((1, 3072), np.uint8), [3])]
OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


def survives(content):
    try:
        unpickle(content)
    except PickleRefusedError as error:
        assert "\n" not in str(error)


def test_text_with_an_escape_that_is_none():
    with pytest.raises(PickleRefusedError, match="is damaged"):
        unpickle(b"S'a\\yb'\n.")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_damaged_pickles(content, draw):
    place = draw.draw(st.integers(0, len(content) - 1))
    damage = draw.draw(st.one_of(st.binary(max_size=3), st.sampled_from(OPCODES)))
    survives(content[:place] + damage + content[place + len(damage) :])
    survives(content[:place])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=4)), max_size=30))
def test_instructions_at_random(parts):
    survives(b"".join(parts) + b".")
