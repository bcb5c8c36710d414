// Sums that belong to no kind of pass. Macros: THREADS, VECTOR, TERMS.

// total[i] = sum of partial[., i] (rows, width); a block for each i.
KERNEL void __launch_bounds__(THREADS)
    add_partials(const double* partial, int64 rows, int64 width, double* total) {
    double sum = 0.0;
    for (int64 row = threadIdx.x; row < rows; row += THREADS)
        sum += partial[row * width + blockIdx.x];
    sum = block_sum(sum);
    if (threadIdx.x == 0) total[blockIdx.x] = sum;
}

struct alignas(sizeof(REAL) * VECTOR) Vector {
    REAL part[VECTOR];
};

struct Weights {
    REAL weight[TERMS];
};

// Squares of sum_j weights_j terms_j, rows of `width` with `neurons` from one to the next. Blocks
// with y = 0 have the output weights, the others share the rows of the input weights.
KERNEL void __launch_bounds__(THREADS)
    squares(const __grid_constant__ Weights p, const REAL* terms, int64 stride, int64 width,
            int64 neurons, int rows, double* partial) {
    double sum = 0.0;
    const int groups = gridDim.y - 1, last = blockIdx.y == 0 ? 1 : rows;
    for (int row = blockIdx.y; row < last; row += groups)
        for (int64 k = (int64(blockIdx.x) * THREADS + threadIdx.x) * VECTOR; k < width;
             k += int64(gridDim.x) * (THREADS * VECTOR)) {
            const REAL* from = terms + row * neurons + k;
            Vector total;
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) total.part[v] = 0;
#pragma unroll
            for (int j = 0; j < TERMS; ++j) {
                const Vector read = *reinterpret_cast<const Vector*>(from + j * stride);
#pragma unroll
                for (int v = 0; v < VECTOR; ++v)
                    total.part[v] += p.weight[j] * read.part[v];
            }
#pragma unroll
            for (int v = 0; v < VECTOR; ++v)
                sum += double(total.part[v]) * double(total.part[v]);
        }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[int64(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// The larger of two, or NaN if one is.
DEVICE double larger(double a, double b) { return b > a || b != b ? b : a; }

// Largest relative drift of input_mobility a^2 - output_mobility |w|^2, of each block.
KERNEL void __launch_bounds__(THREADS)
    invariant_drift(const REAL* initial, const REAL* theta, double output_mobility,
                    double input_mobility, int rows, int64 neurons, double* partial) {
    __shared__ double together[WARPS];
    double largest = 0.0;
    for (int64 k = int64(blockIdx.x) * THREADS + threadIdx.x; k < neurons;
         k += int64(gridDim.x) * THREADS) {
        double before = 0.0, after = 0.0;
        for (int row = 1; row < rows; ++row) {
            const double w = initial[row * neurons + k], v = theta[row * neurons + k];
            before += w * w;
            after += v * v;
        }
        before *= output_mobility;
        after *= output_mobility;
        const double a = input_mobility * double(initial[k]) * double(initial[k]);
        const double b = input_mobility * double(theta[k]) * double(theta[k]);
        const double size = larger(a + before, b + after);
        const double drift = fabs((b - after) - (a - before));
        largest = larger(largest, size > 0.0 ? drift / size : size == size ? 0.0 : size);
    }
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        largest = larger(largest, __shfl_xor_sync(ALL_LANES, largest, distance));
    if (threadIdx.x % WARP == 0) together[threadIdx.x / WARP] = largest;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int warp = 1; warp < WARPS; ++warp) largest = larger(largest, together[warp]);
    partial[blockIdx.x] = largest;
}
