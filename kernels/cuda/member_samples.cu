// The side of size n of a member, in the first warp of its block: a lane a sample.
//
// Every lane comes to the same numbers where a function returns one. The arithmetic is that of
// flowsim.kernels.cpu.samples; sums over samples are taken as trees.

DEVICE double half_mean_square(const double* e) {
    double mine = lane() < N_SAMPLES ? e[lane()] : 0.0;
    double loss = 0.5 * warp_sum(mine * mine) / N_SAMPLES;
    return loss == loss ? loss : INFINITE;
}

DEVICE bool all_finite(const double* e) {
    return __all_sync(ALL_LANES, lane() >= N_SAMPLES || isfinite(e[lane()]));
}

constexpr int LEAK_TOTALS = (N_SAMPLES + GROUP - 1) / GROUP * GROUP;

// e = f - y from the sums over all neurons, into `e`.
DEVICE void take_residual(const Problem& problem, Shared& shared, double* e) {
    int i = lane();
    if (i < N_SAMPLES) {
        double f = shared.totals[i];
        if (LEAKY) {
            double straight = 0.0;
#pragma unroll
            for (int j = 0; j < N_INPUTS; ++j)
                straight += shared.x[i][j] * shared.totals[LEAK_TOTALS + j];
            f = (1.0 - problem.leak) * f + problem.leak * straight;
        }
        e[i] = shared.scale[0] * f - problem.y[i];
    }
    __syncwarp();
}

// The pulls of a stage at the residual e.
DEVICE void make_pull(const Problem& problem, Shared& shared, const double* e, int stage) {
    double factor = shared.scale[0] / N_SAMPLES;
    for (int at = lane(); at < N_SAMPLES * N_INPUTS; at += WARP) {
        int i = at / N_INPUTS, j = at % N_INPUTS;
        double one = e[i] * factor * shared.x[i][j];
        shared.pull[stage].row[i][j] = REAL((1.0 - problem.leak) * one);
    }
    if (lane() < N_INPUTS) {
        double nowhere = 0.0;
        if (LEAKY)
#pragma unroll UNROLLED
            for (int i = 0; i < N_SAMPLES; ++i)
                nowhere += e[i] * factor * shared.x[i][lane()];
        shared.pull[stage].row[N_SAMPLES][lane()] = REAL(problem.leak * nowhere);
    }
}

// Largest |d theta_l / dtau| / |theta_l|; a layer that is zero altogether has no bound.
DEVICE double relative_speed(const Shared& shared) {
    const Kept& kept = shared.kept;
    int i = lane();
    double fastest = 0.0;
    for (int layer = 0; layer < 2; ++layer) {
        double sum = 0.0;
        if (i < N_SAMPLES) {
#pragma unroll UNROLLED
            for (int j = 0; j < N_SAMPLES; ++j)
                sum += kept.grams[layer][j][i] * kept.residual[j];
            sum *= kept.residual[i];
        }
        sum = warp_sum(sum);
        if (kept.sizes[layer] > 0.0) {
            double mobility = shared.scale[layer == 0 ? 2 : 1];
            double speed = mobility * sqrt(sum > 0.0 ? sum : 0.0) / N_SAMPLES;
            speed /= kept.sizes[layer];
            fastest = speed > fastest ? speed : fastest;
        }
    }
    return fastest;
}

// Householder's reduction of shared.matrix, a row a lane, to its diagonal and the one beside it.
DEVICE void tridiagonalise(Shared& shared) {
    int i = lane();
    for (int k = 0; k < N_SAMPLES - 2; ++k) {
        bool below = i > k && i < N_SAMPLES;
        double v = below ? shared.matrix[i][k] : 0.0;
        double scale = warp_sum(v * v);
        double norm = sqrt(scale);
        double next = shared.matrix[k + 1][k];
        // Rounded, and not in one operation with the difference: the rest must be zero exactly.
        if (scale - __dmul_rn(next, next) == 0.0) {
            if (i == 0)
                shared.off_diagonal[k] = fabs(next);
            continue;
        }
        if (i == 0)
            shared.off_diagonal[k] = norm;
        if (i == k + 1)
            v += copysign(norm, v);
        double square = warp_sum(v * v);
        double p = 0.0;
#pragma unroll UNROLLED
        for (int j = k + 1; j < N_SAMPLES; ++j) {
            double other = __shfl_sync(ALL_LANES, v, j);
            if (below)
                p += shared.matrix[i][j] * other;
        }
        p = 2.0 * p / square;
        double dot = warp_sum(p * v);
        p -= dot / square * v;
#pragma unroll UNROLLED
        for (int j = k + 1; j < N_SAMPLES; ++j) {
            double their_v = __shfl_sync(ALL_LANES, v, j), their_p = __shfl_sync(ALL_LANES, p, j);
            if (below)
                shared.matrix[i][j] -= v * their_p + p * their_v;
        }
        __syncwarp();
    }
    if (i < N_SAMPLES)
        shared.diagonal[i] = shared.matrix[i][i];
    if (N_SAMPLES > 1 && i == 0)
        shared.off_diagonal[N_SAMPLES - 2] = fabs(shared.matrix[N_SAMPLES - 1][N_SAMPLES - 2]);
    __syncwarp();
}

// Largest eigenvalue of the symmetric shared.matrix, which is overwritten: Laguerre's iteration on
// the characteristic polynomial of its tridiagonal form, downwards from a bound on the spectrum.
DEVICE double largest_eigenvalue(Shared& shared) {
    if (N_SAMPLES == 1)
        return shared.matrix[0][0];
    tridiagonalise(shared);
    double size = 0.0, upper = -INFINITE;
#pragma unroll UNROLLED
    for (int k = 0; k < N_SAMPLES; ++k) {
        double radius = k < N_SAMPLES - 1 ? shared.off_diagonal[k] : 0.0;
        radius += k > 0 ? shared.off_diagonal[k - 1] : 0.0;
        double centre = shared.diagonal[k];
        size = fmax(size, fabs(centre) + radius);
        upper = fmax(upper, centre + radius);
    }
    if (!(size > 0.0 && isfinite(size)))
        return upper;
    int i = lane();
    __syncwarp();
    if (i < N_SAMPLES)
        shared.diagonal[i] /= size;
    if (i < N_SAMPLES - 1) {
        double beside = shared.off_diagonal[i] / size;
        shared.off_diagonal[i] = beside * beside;
    }
    __syncwarp();
    double x = upper / size, last = INFINITE;
    for (int round = 0; round < 60; ++round) {
        double p = 1.0, p1 = 0.0, p2 = 0.0, q = 0.0, q1 = 0.0, q2 = 0.0;
#pragma unroll UNROLLED
        for (int k = 0; k < N_SAMPLES; ++k) {
            double a = x - shared.diagonal[k];
            double b = k > 0 ? shared.off_diagonal[k - 1] : 0.0;
            double r = a * p - b * q;
            double r1 = a * p1 + p - b * q1;
            double r2 = a * p2 + 2.0 * p1 - b * q2;
            q = p, q1 = p1, q2 = p2;
            p = r, p1 = r1, p2 = r2;
        }
        if (!(p > 0.0))  // above all roots it is positive: rounding has arrived
            break;
        double g = p1 / p, h = g * g - p2 / p;
        double inside = (N_SAMPLES - 1) * (N_SAMPLES * h - g * g);
        double step = N_SAMPLES / (g + sqrt(inside > 0.0 ? inside : 0.0));
        if (!(1e-16 < step && step < last))
            break;
        x -= step;
        last = step;
    }
    return x * size;
}

// Gram matrices of the sums over neurons in kept.grams, and lambda_max(K/n) into kept.rate.
DEVICE void take_kernel(const Problem& problem, Shared& shared) {
    Kept& kept = shared.kept;
    int i = lane();
    bool finite = true;
    if (i < N_SAMPLES)
#pragma unroll UNROLLED
        for (int j = 0; j < N_SAMPLES; ++j) {
            double inner = shared.scale[3] * problem.inner[j * N_SAMPLES + i];
            double input = kept.grams[0][j][i] * inner;
            double output = kept.grams[1][j][i] * shared.scale[3];
            kept.grams[0][j][i] = input;
            kept.grams[1][j][i] = output;
            double entry = shared.scale[2] * input + shared.scale[1] * output;
            shared.matrix[i][j] = entry;
            finite = finite && isfinite(entry);
        }
    finite = __all_sync(ALL_LANES, finite);
    __syncwarp();
    double rate = finite ? fmax(largest_eigenvalue(shared) / N_SAMPLES, 0.0) : INFINITE;
    if (i == 0) {
        kept.rate = rate;
        kept.age = 0;
        kept.drift = 0.0;
    }
    __syncwarp();
}

// The root of a function on [0, 1], positive at 0 and negative at 1, by regula falsi with the
// Illinois rule; a bracket is (low, value, high, value, side, count). In one thread.
DEVICE double guess(const double* bracket) {
    double low = bracket[0], high = bracket[2], width = high - low;
    double x = low + width * (bracket[1] / (bracket[1] - bracket[3]));
    return fmin(fmax(x, low + 0.01 * width), high - 0.01 * width);
}

// Takes in the value at the latest guess; true once it is good to 5e-7.
DEVICE bool narrow(double* bracket, double x, double value) {
    bracket[5] += 1.0;
    if (fabs(value) <= 5e-7 || bracket[5] >= 60.0)
        return true;
    bool positive = value > 0.0;
    int mine = positive ? 0 : 2, other = 2 - mine;
    bracket[mine] = x;
    bracket[mine + 1] = value;
    // An end that stays where it is twice in a row loses half its weight.
    if (positive ? bracket[4] > 0.0 : bracket[4] < 0.0)
        bracket[other + 1] *= 0.5;
    bracket[4] = positive ? 1.0 : -1.0;
    return false;
}
