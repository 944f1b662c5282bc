"""How the renderer's inner loops are compiled."""

import numba

#: numba decorator: cached on disk, without the GIL, IEEE division (a check before each one costs a tenth of the time);
#: no fastmath, so that the same input gives the same bytes
kernel = numba.njit(cache=True, nogil=True, error_model="numpy")
