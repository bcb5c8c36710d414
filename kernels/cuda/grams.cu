// Gram matrices of the layers' derivatives of f for few samples: every pair in a thread's registers.
//
// Samples must be in one chunk, and VECTOR 1. partial (blocks, 2 PAIRS): of the output weights and
// of the input weights, without x_i . x_k, pairs i >= k row by row.

constexpr int PAIRS = SAMPLES * (SAMPLES + 1) / 2;

KERNEL void __launch_bounds__(THREADS)
    grams(const __grid_constant__ Parameters p, const REAL* theta, int64 neurons,
          double* partial) {
    const Samples samples = prepare(nullptr, nullptr, 1);
    constexpr int chunk = 0;
    double sums[2 * PAIRS];
#pragma unroll
    for (int i = 0; i < 2 * PAIRS; ++i) sums[i] = 0.0;
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        if (!live) continue;
        Neurons at;
        load(theta, neurons, k, at);
        REAL value[SAMPLES], signal[SAMPLES];
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i) {
            activation(p.scale * PREACTIVATION(at, i, 0), value[i], signal[i]);
            signal[i] *= at[0][0];
        }
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i)
#pragma unroll
            for (int j = 0; j <= i; ++j) {
                const int pair = i * (i + 1) / 2 + j;
                sums[pair] += double(value[i]) * double(value[j]);
                sums[PAIRS + pair] += double(signal[i]) * double(signal[j]);
            }
    }
    add_block(sums, partial + int64(blockIdx.x) * (2 * PAIRS));
}
