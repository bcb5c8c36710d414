// Passes of a block over the neurons of its member.
//
// Thread t has the neurons t, t + THREADS, ... in all passes, so that no state is shared among
// threads. A neuron's velocity for a piecewise linear activation needs of its preactivations only
// their signs: with pull = sum_i e_i sigma'(z_i) x_i it is (w . pull, a pull).

struct Neuron {
    REAL row[ROWS];
};

// Few enough numbers of all stages stay in registers, others are read from shared memory.
constexpr bool PULL_IN_REGISTERS = N_SAMPLES <= 8 && STAGES * sizeof(Pull) <= 80;

DEVICE Neuron load(const REAL* state, int neurons, int k) {
    Neuron neuron;
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
        neuron.row[row] = state[row * neurons + k];
    return neuron;
}

DEVICE void store(REAL* state, int neurons, int k, const Neuron& neuron) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
        state[row * neurons + k] = neuron.row[row];
}

DEVICE REAL preactivation(const REAL (&point)[N_INPUTS], const Neuron& neuron) {
    REAL z = point[0] * neuron.row[1];
#pragma unroll
    for (int j = 1; j < N_INPUTS; ++j)
        z = fma(point[j], neuron.row[1 + j], z);
    return z;
}

DEVICE Neuron velocity(
    const Problem& problem, const REAL (&factors)[2], const Pull& pull, const Neuron& at
) {
    REAL here[N_INPUTS];
#pragma unroll
    for (int j = 0; j < N_INPUTS; ++j)
        here[j] = pull.row[N_SAMPLES][j];
#pragma unroll UNROLLED
    for (int i = 0; i < N_SAMPLES; ++i) {
        bool active = preactivation(problem.points[i], at) > 0;
#pragma unroll
        for (int j = 0; j < N_INPUTS; ++j)
            here[j] = active ? here[j] + pull.row[i][j] : here[j];
    }
    REAL own = here[0] * at.row[1];
#pragma unroll
    for (int j = 1; j < N_INPUTS; ++j)
        own = fma(here[j], at.row[1 + j], own);
    Neuron moving;
    moving.row[0] = factors[0] * own;
    REAL lever = factors[1] * at.row[0];
#pragma unroll
    for (int j = 0; j < N_INPUTS; ++j)
        moving.row[1 + j] = lever * here[j];
    return moving;
}

DEVICE Neuron add_scaled(const Neuron& base, REAL factor, const Neuron& other) {
    Neuron sum;
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
        sum.row[row] = fma(factor, other.row[row], base.row[row]);
    return sum;
}

// The step of a member as every thread needs it: slopes are formed where they are wanted, from the
// pulls, and kept nowhere.
struct Step {
    REAL factors[2], first, weights[STAGES];
    Pull pull[STAGES];
    const Pull* tables;

    METHOD explicit Step(const Shared& shared) {
        factors[0] = shared.factors[0], factors[1] = shared.factors[1];
        first = shared.first;
#pragma unroll
        for (int stage = 0; stage < STAGES; ++stage) {
            weights[stage] = shared.weights[stage];
            if (PULL_IN_REGISTERS)
                pull[stage] = shared.pull[stage];
        }
        tables = shared.pull;
    }

    METHOD const Pull& of(int stage) const {
        return PULL_IN_REGISTERS ? pull[stage] : tables[stage];
    }

    // On the way to the second stage.
    METHOD Neuron stage(const Problem& problem, const Neuron& base) const {
        return add_scaled(base, first, velocity(problem, factors, of(0), base));
    }

    // base + sum_j weights[j] slopes[j].
    METHOD Neuron reached(const Problem& problem, const Neuron& base) const {
        Neuron slope = velocity(problem, factors, of(0), base);
        Neuron increment;
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
            increment.row[row] = weights[0] * slope.row[row];
        if (STAGES == 2) {
            Neuron second = velocity(problem, factors, of(1), add_scaled(base, first, slope));
            increment = add_scaled(increment, weights[1], second);
        }
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
            increment.row[row] = base.row[row] + increment.row[row];
        return increment;
    }
};

DEVICE void add_product(double& sum, REAL a, REAL b) {
    sum = sizeof(REAL) == 8 ? fma(double(a), double(b), sum) : sum + double(a * b);
}

// a_k max(z_ik, 0) of a group of samples, and with a leak a_k w_k.
DEVICE void add_outputs(
    const Problem& problem, int first, const Neuron& neuron, double (&sums)[GROUP + LEAKS]
) {
#pragma unroll
    for (int i = 0; i < GROUP; ++i) {
        REAL z = preactivation(problem.points[first + i], neuron);
        add_product(sums[i], neuron.row[0], z < 0 ? REAL(0) : z);
    }
#pragma unroll
    for (int j = 0; j < LEAKS; ++j)
        add_product(sums[GROUP + j], neuron.row[0], neuron.row[1 + j]);
}

METHOD constexpr int power_of_two(int count) {
    return count <= 1 ? 1 : 2 * power_of_two((count + 1) / 2);
}

// Sums of each of COUNT numbers over the lanes of a warp, by halving the numbers instead of adding
// each of them up: the lanes from 32/COUNT i on come to number i.
template <int COUNT, int DISTANCE = WARP / 2, int SIZE>
DEVICE double fold(double (&numbers)[SIZE]) {
    if constexpr (DISTANCE == 0)
        return numbers[0];
    else if constexpr (COUNT == 1) {
        numbers[0] += __shfl_xor_sync(ALL_LANES, numbers[0], DISTANCE);
        return fold<1, DISTANCE / 2>(numbers);
    } else {
        constexpr int HALF = COUNT / 2;
        bool upper = lane() & DISTANCE;
#pragma unroll
        for (int i = 0; i < HALF; ++i) {
            double mine = upper ? numbers[HALF + i] : numbers[i];
            double theirs = upper ? numbers[i] : numbers[HALF + i];
            numbers[i] = mine + __shfl_xor_sync(ALL_LANES, theirs, DISTANCE);
        }
        return fold<HALF, DISTANCE / 2>(numbers);
    }
}

// Adds up over the block, in a fixed order, into shared.totals from `first` on, for the first warp.
// A barrier must follow before the next.
template <int COUNT>
DEVICE void gather(Shared& shared, const double (&sums)[COUNT], int first = 0) {
    constexpr int FILLED = power_of_two(COUNT);
    static_assert(FILLED <= WARP, "one number a lane");
    double numbers[FILLED];
#pragma unroll
    for (int i = 0; i < FILLED; ++i)
        numbers[i] = i < COUNT ? sums[i] : 0.0;
    double sum = fold<FILLED>(numbers);
    if (lane() % (WARP / FILLED) == 0)
        shared.warp_sums[threadIdx.x / WARP][lane() / (WARP / FILLED)] = sum;
    __syncthreads();
    if (first_warp()) {
        if (lane() < COUNT) {
            double total = 0.0;
            for (int warp = 0; warp < WARPS; ++warp)
                total += shared.warp_sums[warp][lane()];
            shared.totals[first + lane()] = total;
        }
        __syncwarp();
    }
}

// Outputs where the weights lead to from `here`, or without `REACH` on the way to the second stage.
// With `keep` the state goes `there`.
template <bool REACH>
DEVICE void outputs_pass(const Member& m, bool keep) {
    const Problem& problem = m.problem;
    Step step(m.shared);
#pragma unroll 1
    for (int first = 0; first < N_SAMPLES; first += GROUP) {
        double sums[GROUP + LEAKS] = {};
        if (first > 0)
            __syncthreads();
        for (int k = threadIdx.x; k < m.neurons; k += THREADS) {
            Neuron neuron;
            if (first > 0 && keep)
                neuron = load(m.there, m.neurons, k);
            else {
                neuron = load(m.here, m.neurons, k);
                neuron = REACH ? step.reached(problem, neuron) : step.stage(problem, neuron);
                if (keep)
                    store(m.there, m.neurons, k, neuron);
            }
            add_outputs(problem, first, neuron, sums);
        }
        // Those of the leak come after the last sample; every group overwrites the one before.
        gather(m.shared, sums, first);
    }
}

constexpr int PAIRS = TILE * (TILE + 1) / 2;
// Columns of a tile beside the diagonal: its features are to find registers too.
constexpr int COLUMNS = TILE > 1 && N_INPUTS <= 2 ? 2 : 1;

// Sums over neurons of the products of two groups of samples: sigma_s sigma_t, and
// a^2 sigma'_s sigma'_t; on the diagonal for t <= s only, and after them |w|^2 and a^2.
template <bool DIAGONAL, int COUNT>
DEVICE void add_pairs(
    const Problem& problem, int row, int column, const Neuron& neuron, double (&sums)[COUNT]
) {
    REAL leak = REAL(problem.leak), a = neuron.row[0], values[TILE], signals[TILE];
#pragma unroll
    for (int s = 0; s < TILE; ++s) {
        REAL z = preactivation(problem.points[row + s], neuron);
        values[s] = z > 0 ? z : leak * z;
        signals[s] = z > 0 ? a : leak * a;
    }
#pragma unroll
    for (int t = 0; t < (DIAGONAL ? TILE : COLUMNS); ++t) {
        REAL value = values[t], signal = signals[t];
        if (!DIAGONAL) {
            REAL z = preactivation(problem.points[column + t], neuron);
            value = z > 0 ? z : leak * z;
            signal = z > 0 ? a : leak * a;
        }
#pragma unroll
        for (int s = DIAGONAL ? t : 0; s < TILE; ++s) {
            int place = DIAGONAL ? s * (s + 1) / 2 + t : s * COLUMNS + t;
            add_product(sums[2 * place], values[s], value);
            add_product(sums[2 * place + 1], signals[s], signal);
        }
    }
    if (DIAGONAL) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            double weight = neuron.row[i];
            sums[2 * PAIRS + (i == 0)] = fma(weight, weight, sums[2 * PAIRS + (i == 0)]);
        }
    }
}

// One tile of the Gram sums, into kept.grams on both sides of the diagonal.
template <bool DIAGONAL>
DEVICE void gram_tile(const Member& m, int row, int column) {
    constexpr int COUNT = DIAGONAL ? 2 * PAIRS + 2 : 2 * TILE * COLUMNS;
    Kept& kept = m.shared.kept;
    const double* totals = m.shared.totals;
    double sums[COUNT] = {};
    for (int k = threadIdx.x; k < m.neurons; k += THREADS)
        add_pairs<DIAGONAL>(m.problem, row, column, load(m.here, m.neurons, k), sums);
    gather(m.shared, sums);
    if (first_warp()) {
        int s = lane(), i = row + s, place = DIAGONAL ? s * (s + 1) / 2 : s * COLUMNS;
        if (s < TILE && i < N_SAMPLES)
            for (int t = 0; t < (DIAGONAL ? s + 1 : COLUMNS); ++t, ++place) {
                int j = column + t;
                kept.grams[1][i][j] = kept.grams[1][j][i] = totals[2 * place];
                kept.grams[0][i][j] = kept.grams[0][j][i] = totals[2 * place + 1];
            }
        if (DIAGONAL && row == 0 && lane() < 2)
            kept.sizes[lane()] = sqrt(totals[2 * PAIRS + lane()]);
        __syncwarp();
    }
    __syncthreads();
}

// Sums over neurons for the Gram matrices, and sizes of the layers, at `here`.
DEVICE void gram_pass(const Member& m) {
#pragma unroll 1
    for (int row = 0; row < N_SAMPLES; row += TILE) {
#pragma unroll 1
        for (int column = 0; column < row; column += COLUMNS)
            gram_tile<false>(m, row, column);
        gram_tile<true>(m, row, row);
    }
}

// The larger one; what is not a number outlasts every number.
DEVICE double larger(double one, double other) {
    return other > one || other != other ? other : one;
}

// Drift of a neuron's invariant, input_mobility a^2 - output_mobility |w|^2, relative to the sum.
DEVICE double invariant_drift(const double (&scale)[4], const Neuron& first, const Neuron& now) {
    double drift = 0.0, size = 0.0;
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) {
        const Neuron& neuron = turn == 0 ? first : now;
        double a = neuron.row[0], squares = 0.0;
#pragma unroll
        for (int row = 1; row < ROWS; ++row) {
            double w = neuron.row[row];
            squares += w * w;
        }
        double output = scale[2] * a * a, inputs = scale[1] * squares;
        drift += turn == 0 ? inputs - output : output - inputs;
        size = fmax(size, output + inputs);
    }
    return size > 0.0 ? fabs(drift) / size : 0.0;
}

// Squares of (input, output) of the change, the initial and the present weights of the first copy,
// and dead neurons, into shared.totals, with the largest drift of each warp. With `inside` the
// state is where the weights lead to from `from`. It goes to `snapshot`, unless that is null.
DEVICE void measuring_pass(const Member& m, const REAL* from, bool inside, REAL* snapshot) {
    const Problem& problem = m.problem;
    const REAL* initial = m.members.initial + m.index * m.size();
    double sums[7] = {}, drift = 0.0;
    Step step(m.shared);
    for (int k = threadIdx.x; k < m.neurons; k += THREADS) {
        Neuron first = load(initial, m.neurons, k), now = load(from, m.neurons, k);
        if (inside)
            now = step.reached(problem, now);
        if (k < problem.width)
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                double before = first.row[row], after = now.row[row], change = after - before;
                int layer = row == 0;
                sums[layer] = fma(change, change, sums[layer]);
                sums[2 + layer] = fma(before, before, sums[2 + layer]);
                sums[4 + layer] = fma(after, after, sums[4 + layer]);
            }
        bool dead = true;
#pragma unroll UNROLLED
        for (int i = 0; i < N_SAMPLES; ++i)
            dead = dead && !(preactivation(problem.points[i], now) > 0);
        sums[6] += dead ? 1.0 : 0.0;
        drift = larger(drift, invariant_drift(m.shared.scale, first, now));
        if (snapshot)
            store(snapshot, m.neurons, k, now);
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        drift = larger(drift, __shfl_xor_sync(ALL_LANES, drift, distance));
    if (lane() == 0)
        m.shared.warp_drift[threadIdx.x / WARP] = drift;
    gather(m.shared, sums);
}
