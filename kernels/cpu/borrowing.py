"""Arrays without reference counts, for loops in which the counting would cost more than the work.

Numba counts a reference, atomically, whenever an array is read out of a tuple, handed on or
looked at in part. Code that runs a whole network between two calls of Python does that dozens of
times a pass. Arrays that are borrowed own nothing: to count is to find that there is nothing to
count. Whoever lends must keep the arrays until the borrower is done.
"""

from __future__ import annotations

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def borrowed(typingctx, lent):
    """A named tuple with the same fields, in which arrays own nothing.

    Parameters
    ----------
    lent : named tuple
        Of arrays and of anything else, which is taken as it is.

    Returns
    -------
    named tuple
        Valid as long as the arrays of ``lent`` are alive.
    """

    def codegen(context, builder, signature, arguments):
        fields = []
        for kind, value in zip(
            lent.types, cgutils.unpack_tuple(builder, arguments[0]), strict=True
        ):
            if isinstance(kind, types.Array):
                array = context.make_array(kind)(context, builder, value)
                array.meminfo = cgutils.get_null_value(array.meminfo.type)
                array.parent = cgutils.get_null_value(array.parent.type)
                value = array._getvalue()
            elif isinstance(kind, types.BaseTuple):
                context.nrt.incref(builder, kind, value)
            fields.append(value)
        return context.make_tuple(builder, lent, fields)

    return lent(lent), codegen
