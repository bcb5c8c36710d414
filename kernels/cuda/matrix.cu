// Between two matrix products: z = x w (n, columns) of a block of neurons is used up, or becomes
// what the samples pull with. Macros: THREADS, TERMS.
//
// Rows are `ld` apart wherever a row is not `columns` long.

constexpr int AHEAD = 4;

struct Scales {
    REAL scale;
    REAL output_mobility;  // over the scale
};

#define COLUMNS                                                                                   \
    for (int64 k = int64(blockIdx.x) * THREADS + threadIdx.x; k < columns;                        \
         k += int64(gridDim.x) * THREADS)

// g = pull_i a sigma'(z), which may be z's own place, and the rate of the output weights. A block
// has a column for each lane of a warp; its warps share the samples.
KERNEL void __launch_bounds__(THREADS, 4)
    pull(const __grid_constant__ Scales p, const REAL* z, REAL* g, const REAL* pulls, int n,
         const REAL* a, int64 columns, REAL* rate) {
    __shared__ REAL together[WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64 k = int64(blockIdx.x) * WARP + lane;
    REAL sum = 0;
    if (k < columns) {
        const REAL weight = a[k];
        // Some samples ahead: g may be z, so that the compiler could not read past what it writes.
        for (int first = warp; first < n; first += WARPS * AHEAD) {
            REAL read[AHEAD];
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                const int i = first + u * WARPS;
                read[u] = i < n ? z[i * columns + k] : REAL(0);
            }
#pragma unroll
            for (int u = 0; u < AHEAD; ++u) {
                const int i = first + u * WARPS;
                if (i >= n) break;
                REAL value, derivative;
                activation(p.scale * read[u], value, derivative);
                sum += pulls[i] * value;
                g[i * columns + k] = pulls[i] * derivative * weight;
            }
        }
    }
    together[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || k >= columns) return;
    REAL total = 0;
#pragma unroll
    for (int other = 0; other < WARPS; ++other) total += together[other][lane];
    rate[k] = p.output_mobility * total;
}

// Sums of a sigma(z) over the neurons: partial (segments, n), a block for each.
KERNEL void __launch_bounds__(THREADS)
    outputs(const __grid_constant__ Scales p, const REAL* z, const REAL* a, int64 columns,
            int64 segment, double* partial) {
    const int64 first = blockIdx.y * segment, i = blockIdx.x;
    const int64 last = first + segment < columns ? first + segment : columns;
    double sum = 0.0;
    for (int64 k = first + threadIdx.x; k < last; k += THREADS) {
        REAL value, derivative;
        activation(p.scale * z[i * columns + k], value, derivative);
        sum += double(a[k] * value);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[int64(blockIdx.y) * gridDim.x + i] = sum;
}

// The same of b sigma(z) + scale a sigma'(z) y: the outputs' derivative along (b, .), y = x times it.
KERNEL void __launch_bounds__(THREADS)
    tangent(const __grid_constant__ Scales p, const REAL* z, const REAL* y, const REAL* a,
            const REAL* b, int64 columns, int64 segment, double* partial) {
    const int64 first = blockIdx.y * segment, i = blockIdx.x;
    const int64 last = first + segment < columns ? first + segment : columns;
    double sum = 0.0;
    for (int64 k = first + threadIdx.x; k < last; k += THREADS) {
        REAL value, derivative;
        activation(p.scale * z[i * columns + k], value, derivative);
        sum += double(b[k] * value + p.scale * a[k] * derivative * y[i * columns + k]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[int64(blockIdx.y) * gridDim.x + i] = sum;
}

// sigma(z) and a sigma'(z) in float64, for Gram matrices.
KERNEL void __launch_bounds__(THREADS)
    features(const __grid_constant__ Scales p, const REAL* z, const REAL* a, int n,
             int64 columns, double* values, double* signals) {
    COLUMNS {
        for (int i = blockIdx.y; i < n; i += gridDim.y) {
            REAL value, derivative;
            activation(p.scale * z[i * columns + k], value, derivative);
            values[i * columns + k] = value;
            signals[i * columns + k] = double(a[k]) * double(derivative);
        }
    }
}

// Neurons with z > 0 on all samples, and on none: counts (blocks, 2).
KERNEL void __launch_bounds__(THREADS)
    activity(const REAL* z, int n, int64 columns, double* partial) {
    double everywhere = 0.0, nowhere = 0.0;
    COLUMNS {
        int active = 0;
        for (int i = 0; i < n; ++i) active += z[i * columns + k] > 0;
        everywhere += active == n;
        nowhere += active == 0;
    }
    everywhere = block_sum(everywhere);
    __syncthreads();
    nowhere = block_sum(nowhere);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = everywhere;
        partial[2 * blockIdx.x + 1] = nowhere;
    }
}

struct Terms {
    const REAL* at[TERMS + 1];
    int64 ld[TERMS + 1];
    REAL weight[TERMS + 1];
    REAL shift[TERMS + 1];  // 1: the base is taken from the term first
    const REAL* base;       // or none
    int64 base_ld;
};

// out = base + sum_j weight_j (term_j - shift_j base), for rows of `columns` neurons; the base
// counts as 0 where there is none, and is not added where `add_base` is 0.
KERNEL void __launch_bounds__(THREADS, 4)
    blend(const __grid_constant__ Terms p, int add_base, int rows, int64 columns, REAL* out,
          int64 out_ld) {
    for (int row = blockIdx.y; row < rows; row += gridDim.y)
        COLUMNS {
            const REAL base = p.base ? p.base[row * p.base_ld + k] : REAL(0);
            REAL total = 0;
#pragma unroll
            for (int j = 0; j < TERMS; ++j)
                total += p.weight[j] * (p.at[j][row * p.ld[j] + k] - p.shift[j] * base);
            out[row * out_ld + k] = add_base ? base + total : total;
        }
}
