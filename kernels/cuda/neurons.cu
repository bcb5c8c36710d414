// What the passes over few inputs share: a thread takes VECTOR neurons at a time, all their rows in
// registers, and goes through the samples.
//
// Macros: INPUTS (d), SAMPLES, ONE_CHUNK, VECTOR, THREADS, SLOPES and ERRORS (sizes of the weights),
// BEGIN, and RETRACED, the slopes that are made again: 0 where none is.
// With ONE_CHUNK the samples are SAMPLES altogether: inputs come from the kernel's parameters,
// which instructions read at no cost, and the outputs are summed in registers. Otherwise they come
// in chunks of SAMPLES, the last one padded with zeros: inputs lie in shared memory, and after each
// chunk a warp adds up its outputs.

constexpr int ROWS = 1 + INPUTS;
constexpr int MOVES = ERRORS > 0 ? ERRORS : 1;

// Products and sums that several kernels have in common are written as fma: which of them the
// compiler would fuse could else differ from kernel to kernel, and with it the bits of a rate.

struct Parameters {
#if ONE_CHUNK
    REAL x[SAMPLES * INPUTS];
    REAL pull[(RETRACED > 0 ? RETRACED : 1) * SAMPLES];  // -multiplier n dR/df / n
#endif
    REAL here[SLOPES + 1];
    REAL weights[MOVES * (SLOPES + 1)];
#if BEGIN
    REAL others[SLOPES + 1];
#endif
#if RETRACED
    REAL rows[RETRACED * RETRACED];
#endif
    REAL scale;            // sigma(scale z) / scale
    REAL output_mobility;  // over the scale
    REAL input_mobility;
};

struct alignas(sizeof(REAL) * VECTOR) Vector {
    REAL part[VECTOR];
};

typedef REAL Neurons[ROWS][VECTOR];

DEVICE void load(const REAL* state, int64 neurons, int64 first, Neurons& to) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        const Vector found = *reinterpret_cast<const Vector*>(state + row * neurons + first);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) to[row][v] = found.part[v];
    }
}

DEVICE void store(const Neurons& from, REAL* state, int64 neurons, int64 first) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        Vector made;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) made.part[v] = from[row][v];
        *reinterpret_cast<Vector*>(state + row * neurons + first) = made;
    }
}

DEVICE void copy(const Neurons& from, Neurons& to) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) to[row][v] = from[row][v];
}

DEVICE void clear(Neurons& values) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) values[row][v] = 0;
}

DEVICE void add(REAL factor, const Neurons& what, Neurons& to) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) to[row][v] = fma(factor, what[row][v], to[row][v]);
}

// Squares of output and of input weights.
DEVICE void add_squares(const Neurons& of, double* sums) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
            sums[row > 0] += double(of[row][v]) * double(of[row][v]);
}

DEVICE void subtract(const Neurons& what, Neurons& from) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) from[row][v] -= what[row][v];
}

// Where the samples are.

struct Samples {
#if !ONE_CHUNK
    int chunks;
    const REAL* x;     // (chunks SAMPLES, INPUTS)
    const REAL* pull;  // (chunks SAMPLES,)
    double* sums;      // (WARPS, MOVES, chunks SAMPLES): of each warp
#endif
};

#if ONE_CHUNK
#define CHUNKS 1
#define X(i, j) p.x[(i) * INPUTS + (j)]
#define PULL(i) p.pull[stage * SAMPLES + (i)]
#else
#define CHUNKS samples.chunks
#define X(i, j) samples.x[(chunk * SAMPLES + (i)) * INPUTS + (j)]
#define PULL(i) samples.pull[chunk * SAMPLES + (i)]
extern __shared__ __align__(16) unsigned char shared_bytes[];
#endif

// Bring the samples to where they are read from; all threads of the block together.
DEVICE Samples prepare(const REAL* x, const REAL* pull, int chunks) {
    Samples samples;
#if !ONE_CHUNK
    const int n = chunks * SAMPLES;
    double* sums = reinterpret_cast<double*>(shared_bytes);
    REAL* own_x = reinterpret_cast<REAL*>(sums + WARPS * MOVES * n);
    REAL* own_pull = own_x + n * INPUTS;
    for (int i = threadIdx.x; i < WARPS * MOVES * n; i += THREADS) sums[i] = 0.0;
    for (int i = threadIdx.x; i < n * INPUTS; i += THREADS) own_x[i] = x[i];
    if (pull)
        for (int i = threadIdx.x; i < n; i += THREADS) own_pull[i] = pull[i];
    __syncthreads();
    samples.chunks = chunks;
    samples.x = own_x;
    samples.pull = own_pull;
    samples.sums = sums;
#endif
    return samples;
}

#define PREACTIVATION(at, i, v) preactivation_of(p, samples, at, chunk, i, v)

DEVICE REAL preactivation_of(const Parameters& p, const Samples& samples, const Neurons& at,
                             int chunk, int i, int v) {
    REAL z = X(i, 0) * at[1][v];
#pragma unroll
    for (int j = 1; j < INPUTS; ++j) z = fma(X(i, j), at[1 + j][v], z);
    return z;
}

// d theta / d time of the neurons, for what the samples pull with in a stage.
DEVICE void rate_at(const Parameters& p, const Samples& samples, const Neurons& at, Neurons& rate,
                    int stage = 0) {
    clear(rate);
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i) {
            const REAL pull = PULL(i);
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
                REAL value, derivative;
                activation(p.scale * PREACTIVATION(at, i, v), value, derivative);
                rate[0][v] = fma(pull, value, rate[0][v]);
                const REAL part = pull * derivative;
#pragma unroll
                for (int j = 0; j < INPUTS; ++j)
                    rate[1 + j][v] = fma(part, X(i, j), rate[1 + j][v]);
            }
        }
    }
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
        rate[0][v] *= p.output_mobility;
        const REAL factor = p.input_mobility * at[0][v];
#pragma unroll
        for (int j = 0; j < INPUTS; ++j) rate[1 + j][v] *= factor;
    }
}

// Sums over neurons. What a thread has found is added in float64, in an order that depends on the
// number of neurons alone: over its neurons, the lanes of its warp, the warps, the blocks.

#if ONE_CHUNK
typedef double Sums[MOVES][SAMPLES];
#else
typedef int Sums;  // they are in shared memory
#endif

DEVICE void clear_sums(Sums& sums) {
#if ONE_CHUNK
#pragma unroll
    for (int move = 0; move < MOVES; ++move)
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i) sums[move][i] = 0.0;
#else
    sums = 0;
#endif
}

#if !ONE_CHUNK
// Sums over the lanes of a warp of SAMPLES values each: lane l gets that of value l % SAMPLES. In
// every step a lane gives away half of its values for the other half of its partner's.
template <int HALF>
DEVICE void halve(double (&values)[SAMPLES]) {
    const bool upper = (threadIdx.x & HALF) != 0;
#pragma unroll
    for (int i = 0; i < HALF; ++i) {
        const double given = upper ? values[i] : values[i + HALF];
        const double kept = upper ? values[i + HALF] : values[i];
        values[i] = kept + __shfl_xor_sync(ALL_LANES, given, HALF);
    }
    if constexpr (HALF > 1) halve<HALF / 2>(values);
}

DEVICE double warp_sums(double (&values)[SAMPLES]) {
    halve<SAMPLES / 2>(values);
    double total = values[0];
#pragma unroll
    for (int distance = SAMPLES; distance < WARP; distance *= 2)
        total += __shfl_xor_sync(ALL_LANES, total, distance);
    return total;
}
#endif

// For every sample, add over the neurons what EXPRESSION says for neuron v and sample i. All lanes
// of a warp together.
#define ADD_OVER_NEURONS(move, EXPRESSION)                                                        \
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {                                                \
        CHUNK_BEGINS                                                                              \
        _Pragma("unroll") for (int i = 0; i < SAMPLES; ++i) {                                     \
            REAL total = 0;                                                                       \
            _Pragma("unroll") for (int v = 0; v < VECTOR; ++v) total += (EXPRESSION);             \
            SAMPLE_ENDS(move)                                                                     \
        }                                                                                         \
        CHUNK_ENDS(move)                                                                          \
    }

#if ONE_CHUNK
#define CHUNK_BEGINS
#define SAMPLE_ENDS(move) sums[move][i] += double(total);
#define CHUNK_ENDS(move)
#else
#define CHUNK_BEGINS double found[SAMPLES];
#define SAMPLE_ENDS(move) found[i] = double(total);
#define CHUNK_ENDS(move)                                                                          \
    const double sum = warp_sums(found);                                                          \
    if (threadIdx.x % WARP < SAMPLES)                                                             \
        samples.sums[((threadIdx.x / WARP) * MOVES + move) * samples.chunks * SAMPLES +           \
                     chunk * SAMPLES + threadIdx.x % WARP] += sum;
#endif

DEVICE REAL output_of(const Parameters& p, const Samples& samples, const Neurons& at, int chunk,
                      int i, int v) {
    REAL value, derivative;
    activation(p.scale * PREACTIVATION(at, i, v), value, derivative);
    return at[0][v] * value;
}

DEVICE void add_outputs(const Parameters& p, const Samples& samples, const Neurons& at,
                        Sums& sums, int move = 0) {
    ADD_OVER_NEURONS(move, output_of(p, samples, at, chunk, i, v))
}

// The sums of a block: partial (blocks, width) from its place on.
template <int N>
DEVICE void add_block(const double (&values)[N], double* partial) {
    __shared__ double together[WARPS][N];
    __syncthreads();  // of a call before this one nothing is left to be read
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const double sum = warp_sum(values[i]);
        if (threadIdx.x % WARP == 0) together[threadIdx.x / WARP][i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < N; i += THREADS) {
        double total = 0.0;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) total += together[warp][i];
        partial[i] = total;
    }
}

// Write the outputs of the block, (MOVES, n) with n padded to whole chunks.
DEVICE void finish(const Samples& samples, Sums& sums, double* partial) {
#if ONE_CHUNK
    double flat[MOVES * SAMPLES];
#pragma unroll
    for (int move = 0; move < MOVES; ++move)
#pragma unroll
        for (int i = 0; i < SAMPLES; ++i) flat[move * SAMPLES + i] = sums[move][i];
    add_block(flat, partial);
#else
    __syncthreads();
    const int width = MOVES * samples.chunks * SAMPLES;
    for (int i = threadIdx.x; i < width; i += THREADS) {
        double total = 0.0;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) total += samples.sums[warp * width + i];
        partial[i] = total;
    }
#endif
}

// A loop over all neurons in which the lanes of a warp stay together: k is a thread's first neuron.
// One beyond the end works on the first neurons and counts for nothing: `live` is false.
#define FOR_NEURONS                                                                               \
    for (int64 start = int64(blockIdx.x) * (THREADS * VECTOR); start < neurons;                   \
         start += int64(gridDim.x) * (THREADS * VECTOR))

DEVICE bool place(int64 start, int64 neurons, int64& k) {
    k = start + threadIdx.x * VECTOR;
    const bool live = k < neurons;
    if (!live) k = 0;
    return live;
}

DEVICE void silence(bool live, Neurons& at) {
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) at[0][v] = live ? at[0][v] : REAL(0);
}
