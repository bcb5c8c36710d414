// Stages that read the base alone. A neuron's slopes are functions of its state and of the residuals
// of the stages: where samples and inputs are few they are made again, in registers, in less time
// than it takes to read them. Arithmetic and its order are those of stage.cu and errors.cu.
//
// Macro RETRACED: how many slopes there are. rows (RETRACED, RETRACED): the state after slope j is
// base + sum_(l <= j) rows[j, l] slopes[l]. The weights (ERRORS, RETRACED) are those of errors.

DEVICE void after(const Parameters& p, const Neurons& base, const Neurons (&slopes)[RETRACED],
                  int last, Neurons& to) {
    copy(base, to);
#pragma unroll
    for (int l = 0; l < RETRACED; ++l)
        if (l <= last) add(p.rows[last * RETRACED + l], slopes[l], to);
}

DEVICE void make_slopes(const Parameters& p, const Samples& samples, const Neurons& base,
                        Neurons (&slopes)[RETRACED], Neurons& at) {
    copy(base, at);
#pragma unroll
    for (int j = 0; j < RETRACED; ++j) {
        if (j > 0) after(p, base, slopes, j - 1, at);
        rate_at(p, samples, at, slopes[j], j);
    }
}

#if MOVE
// The state after the last slope, and the outputs there.
KERNEL void __launch_bounds__(THREADS)
    retrace(const __grid_constant__ Parameters p, const REAL* base, REAL* out, int64 neurons,
            double* partial) {
    const Samples samples = prepare(nullptr, nullptr, 1);
    Sums sums;
    clear_sums(sums);
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons origin, at, slopes[RETRACED];
        load(base, neurons, k, origin);
        make_slopes(p, samples, origin, slopes, at);
        after(p, origin, slopes, RETRACED - 1, at);
        if (live && out) store(at, out, neurons, k);
        silence(live, at);
        add_outputs(p, samples, at, sums);
    }
    finish(samples, sums, partial + int64(blockIdx.x) * SAMPLES);
}
#else
// Errors of a step whose last slope is that at the new state; partial sums as in errors.cu.
KERNEL void __launch_bounds__(THREADS)
    retrace_errors(const __grid_constant__ Parameters p, const REAL* base, int64 neurons,
                   double* partial) {
    const Samples samples = prepare(nullptr, nullptr, 1);
    Sums sums;
    clear_sums(sums);
    double squares[2 * ERRORS + 2];
#pragma unroll
    for (int i = 0; i < 2 * ERRORS + 2; ++i) squares[i] = 0.0;
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons origin, at, slopes[RETRACED];
        load(base, neurons, k, origin);
        make_slopes(p, samples, origin, slopes, at);
        if (live) add_squares(at, squares + 2 * ERRORS);
#pragma unroll
        for (int e = 0; e < ERRORS; ++e) {
            Neurons wrong, other;
            clear(wrong);
#pragma unroll
            for (int j = 0; j < RETRACED; ++j) add(p.weights[e * (SLOPES + 1) + j], slopes[j], wrong);
            if (live) add_squares(wrong, squares + 2 * e);
            copy(at, other);
            subtract(wrong, other);
            silence(live, other);
            add_outputs(p, samples, other, sums, e);
        }
    }
    constexpr int outputs = ERRORS * SAMPLES;
    partial += int64(blockIdx.x) * (outputs + 2 * ERRORS + 2);
    finish(samples, sums, partial);
    add_block(squares, partial + outputs);
}
#endif
