"""States and rates of a deep network whose hidden matrices are too large to be written out.

The rate of a hidden matrix is Q^T P with Q = A_(l-1) (n, fan_in) and P (n, fan_out): it is kept as
these two factors. A state is some matrices, shared with the state it was made from, plus a
combination of rates that has not been added to them yet. It is added once a step, when the step's
other states are no longer needed (`FactoredState.settle`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from flowsim.kernels.interface import DeepLayout

from . import layers
from .matrices import NUMBERS, Factors, Matrices
from .rank_updates import add_and_square, correct


class Rate:
    """A rate of all copies.

    Attributes
    ----------
    small : (copies, small) array
        Of everything but the hidden matrices.
    p, q : list of list of (n, fan_out), (n, fan_in) arrays
        Factors by copy and hidden matrix.
    products, later : list of list of (n, fan_out) arrays
        Q times the settled matrices that the state where the rate was taken is made of, and times
        the whole of that state's, which are the settled ones once a step has been made to it.
    taken : int
        Version of the matrices at which the rate was taken.
    version : int
        Changes whenever the rate does.
    """

    def __init__(self, shape: Shape) -> None:
        n, sizes = shape.n_samples, shape.layout.sizes
        self.small = np.zeros((shape.copies, shape.small), shape.dtype)
        pairs = [(sizes[layer], sizes[layer + 1]) for layer in shape.hidden]
        self.p = [[np.zeros((n, b), shape.dtype) for _, b in pairs] for _ in range(shape.copies)]
        self.q = [[np.zeros((n, a), shape.dtype) for a, _ in pairs] for _ in range(shape.copies)]
        self.products = [[np.zeros_like(p) for p in of_copy] for of_copy in self.p]
        self.later = [[np.zeros_like(p) for p in of_copy] for of_copy in self.p]
        self.taken = 0
        self.version = 0
        self.number = next(NUMBERS)

    def __setitem__(self, key: object, other: Rate) -> None:
        """Copy another rate, ``rate[...] = other``."""
        self.unpack(other.pack(), other.taken)

    def product(self, copy: int, number: int, version: int) -> np.ndarray:
        """Q times the matrices of this version."""
        if version == self.taken:
            return self.products[copy][number]
        if version == self.taken + 1:
            return self.later[copy][number]
        raise RuntimeError("a rate was used after the step that it belongs to")

    def _arrays(self) -> list[np.ndarray]:
        groups = (self.p, self.q, self.products, self.later)
        return [self.small, *(a for group in groups for of_copy in group for a in of_copy)]

    def pack(self) -> np.ndarray:
        """All that it is, in one array of its own."""
        return np.concatenate([array.reshape(-1) for array in self._arrays()])

    def unpack(self, packed: np.ndarray, taken: int) -> None:
        """Become what was packed, as if it was taken at that version of the matrices."""
        self.taken = taken
        start = 0
        for array in self._arrays():
            array[...] = packed[start : start + array.size].reshape(array.shape)
            start += array.size
        self.version += 1


class Rates(Sequence[Rate]):
    """A stack of rates."""

    def __init__(self, rates: list[Rate]) -> None:
        self._rates = rates

    def __len__(self) -> int:
        return len(self._rates)

    def __iter__(self) -> Iterator[Rate]:
        return iter(self._rates)

    @overload
    def __getitem__(self, index: int) -> Rate: ...
    @overload
    def __getitem__(self, index: slice) -> Rates: ...
    def __getitem__(self, index: int | slice) -> Rate | Rates:
        found = self._rates[index]
        return Rates(found) if isinstance(found, list) else found


class Shape:
    """What all states of a network have in common.

    Parameters
    ----------
    layout : DeepLayout
    copies, n_samples : int
    dtype : numpy.dtype
    threads : int
    """

    def __init__(
        self, layout: DeepLayout, copies: int, n_samples: int, dtype: np.dtype, threads: int
    ) -> None:
        self.layout, self.copies, self.n_samples = layout, copies, n_samples
        self.dtype, self.threads = dtype, threads
        count = len(layout.sizes) - 1
        self.hidden = range(1, count - 1)
        """Layers with a hidden matrix."""
        self.places: list[slice] = []
        """Of each layer in the small parameters: all of it, or the biases beside the matrix."""
        start = 0
        for layer in range(count):
            first, last = layout.bounds[layer : layer + 2]
            matrix = layout.sizes[layer] * layout.sizes[layer + 1] if layer in self.hidden else 0
            self.places.append(slice(start, start + last - first - matrix))
            start += last - first - matrix
        self.small = start

    def matrix_shape(self, layer: int) -> tuple[int, int]:
        """(fan_in, fan_out)."""
        rows, columns = self.layout.sizes[layer : layer + 2]
        return rows, columns


Terms = tuple[tuple[float, Rate], ...]


class FactoredState:
    """A state: small parameters, shared matrices, and what is still to be added to these.

    Parameters
    ----------
    shape : Shape
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.small = np.zeros((shape.copies, shape.small), shape.dtype)
        self.matrices: Matrices | None = None
        self.terms: Terms = ()
        self._version = 0
        self._own: Rate | None = None

    @property
    def own(self) -> Rate:
        """A rate that belongs to this state, for one that nobody else keeps."""
        if self._own is None:
            self._own = Rate(self._shape)
        return self._own

    def become(self, base: FactoredState, terms: Sequence[tuple[float, Rate]]) -> None:
        """Be base + sum of weight times rate."""
        assert base.matrices is not None
        base.check()
        small = base.small.copy()
        increment = np.zeros_like(small)
        merged: dict[int, tuple[float, Rate]] = {id(rate): (w, rate) for w, rate in base.terms}
        for weight, rate in terms:
            increment += self._shape.dtype.type(weight) * rate.small
            before = merged.get(id(rate), (0.0, rate))[0]
            merged[id(rate)] = (before + float(weight), rate)
        self.small[...] = small + increment
        self.matrices, self._version = base.matrices, base.matrices.version
        self.terms = tuple(term for term in merged.values() if term[0] != 0.0)

    def check(self) -> None:
        """See that the matrices are still those that this state was made of."""
        if self.matrices is None or self.matrices.version != self._version:
            raise RuntimeError("a state was used after the step that it belongs to")

    def key(self) -> tuple:
        """Something that changes with any change of the hidden matrices."""
        self.check()
        terms = tuple((weight, rate.number, rate.version) for weight, rate in self.terms)
        assert self.matrices is not None
        return (self.matrices.number, self._version, terms)

    def fill(self, rows: np.ndarray) -> None:
        """Take the values of a state in dense layout (copies, parameters)."""
        shape, arrays = self._shape, []
        for copy, row in enumerate(rows):
            for layer, place in enumerate(shape.places):
                last = shape.layout.bounds[layer + 1]
                self.small[copy, place] = row[last - (place.stop - place.start) : last]
            arrays.append(
                [
                    np.array(shape.layout.weights(row, layer), shape.dtype, order="C")
                    for layer in shape.hidden
                ]
            )
        self.matrices, self.terms, self._version = Matrices(arrays, shape.threads), (), 0

    def settle(self) -> None:
        """Add to the matrices what is still to be added; states that share them are void."""
        self.check()
        if not self.terms:
            return
        assert self.matrices is not None
        hidden = range(len(self._shape.hidden))
        self.matrices.update(
            [
                [self.factors(copy, number) for number in hidden]
                for copy in range(self._shape.copies)
            ]
        )
        self._version, self.terms = self.matrices.version, ()

    def factors(self, copy: int, number: int) -> Factors:
        """All terms of a hidden matrix as one pair of factors Q (k, fan_in), P (k, fan_out)."""
        weight_of = self._shape.dtype.type
        p = np.concatenate([weight_of(w) * rate.p[copy][number] for w, rate in self.terms])
        return np.concatenate([rate.q[copy][number] for _, rate in self.terms]), p

    def hidden(self, copy: int, number: int) -> np.ndarray:
        """A hidden matrix, read only; a new array unless the state is settled."""
        self.check()
        assert self.matrices is not None
        matrix = self.matrices.array(copy, number)
        if not self.terms:
            return matrix
        out = np.empty_like(matrix)
        add_and_square(matrix, self.factors(copy, number), out, self._shape.threads)
        return out

    def copy(self) -> FactoredState:
        """A state with matrices of its own, settled."""
        new = FactoredState(self._shape)
        new.small[...] = self.small
        hidden = range(len(self._shape.hidden))
        copies = range(self._shape.copies)
        arrays = [[self.hidden(copy, number).copy() for number in hidden] for copy in copies]
        new.matrices = Matrices(arrays, self._shape.threads)
        return new

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        """The state in dense layout (copies, parameters)."""
        shape = self._shape
        rows = np.empty((shape.copies, shape.layout.length), shape.dtype)
        for number, row in enumerate(rows):
            for layer, place in enumerate(shape.places):
                last = shape.layout.bounds[layer + 1]
                row[last - (place.stop - place.start) : last] = self.small[number, place]
            for which, layer in enumerate(shape.hidden):
                shape.layout.weights(row, layer)[...] = self.hidden(number, which)
        return rows


class _Weights:
    """The weights of one copy that are written out: of small layers, and biases.

    Parameters
    ----------
    shape : Shape
    small : (small,) array
    """

    def __init__(self, shape: Shape, small: np.ndarray) -> None:
        self._shape, self._small = shape, small

    def _own(self, layer: int) -> np.ndarray:
        """Weights of a layer that has no hidden matrix."""
        rows, columns = self._shape.matrix_shape(layer)
        part = self._small[self._shape.places[layer]]
        return part[: rows * columns].reshape(rows, columns)

    def bias(self, layer: int) -> np.ndarray | None:
        """Biases (fan_out,)."""
        if not (self._shape.layout.biases and layer > 0):
            return None
        part = self._small[self._shape.places[layer]]
        return part[len(part) - self._shape.layout.sizes[layer + 1] :]


class StateWeights(_Weights):
    """The weights of one copy of a factored state, for `flowsim.kernels.cpu.layers.Pass`.

    Parameters
    ----------
    shape : Shape
    state : FactoredState
    copy : int
    products, later : list of (n, fan_out) arrays
        Receive the products with the settled matrices, and with the whole of them.
    """

    def __init__(
        self,
        shape: Shape,
        state: FactoredState,
        copy: int,
        products: list[np.ndarray],
        later: list[np.ndarray],
    ) -> None:
        super().__init__(shape, state.small[copy])
        self._state, self._copy = state, copy
        self._products, self._later = products, later

    def times(self, layer: int, signal: np.ndarray, out: np.ndarray) -> None:
        threads, state = self._shape.threads, self._state
        if layer not in self._shape.hidden:
            layers.times(signal, self._own(layer), out, threads)
            return
        assert state.matrices is not None
        number = layer - 1
        state.matrices.times(self._copy, number, signal, out)
        self._products[number][...] = out
        terms = [(w, r.q[self._copy][number], r.p[self._copy][number]) for w, r in state.terms]
        correct(signal, terms, out, threads)
        self._later[number][...] = out

    def pull(self, layer: int, back: np.ndarray, out: np.ndarray) -> None:
        threads, state = self._shape.threads, self._state
        if layer not in self._shape.hidden:
            layers.pull(back, self._own(layer), out, threads)
            return
        assert state.matrices is not None
        number = layer - 1
        layers.pull(back, state.matrices.array(self._copy, number), out, threads)
        terms = [(w, r.p[self._copy][number], r.q[self._copy][number]) for w, r in state.terms]
        correct(back, terms, out, threads)


class RateWeights(_Weights):
    """A rate in the place of weights, for the derivative along it.

    Parameters
    ----------
    shape : Shape
    rate : Rate
    copy : int
    """

    def __init__(self, shape: Shape, rate: Rate, copy: int) -> None:
        super().__init__(shape, rate.small[copy])
        self._rate, self._copy = rate, copy

    def times(self, layer: int, signal: np.ndarray, out: np.ndarray) -> None:
        threads = self._shape.threads
        if layer not in self._shape.hidden:
            layers.times(signal, self._own(layer), out, threads)
            return
        q, p = (factors[self._copy][layer - 1] for factors in (self._rate.q, self._rate.p))
        out[...] = 0.0
        correct(signal, [(1.0, q, p)], out, threads)
