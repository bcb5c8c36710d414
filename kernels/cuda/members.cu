// Whole runs of small networks: one block a member of an ensemble, one launch some of its steps.
//
// A member is what flowsim.kernels.cpu.members makes of it, with its own step, time, rows and
// ending. The first warp decides what is done next and orders it, the block passes over the
// neurons, and so on: every pass stands once in the code.

// Where a member is. Between launches it is between two steps.
enum {
    BEGINNING, FIRST_OUTPUTS, FIRST_ROW, BETWEEN_STEPS, AFTER_GRAMS, AFTER_STAGE, AFTER_STEP,
    AFTER_GUESS, INSIDE_STEP, AFTER_ROW, AT_CROSSING, FINISHED
};

// What a phase may leave to be done before there is an order: it stands once in the code, too.
enum { GUESS = -1, LOOK_BACK = -2, SETTLE = -3 };

DEVICE int go(Shared& shared, int phase, int order) {
    shared.phase = phase;
    return order;
}

// `Watch.ending` as yes or no; the marks are those before it, for the explanation. In one thread,
// as everything that gives an order.
DEVICE bool rule_ends(const Member& m, double time, double loss) {
    const Rules& rules = m.rules;
    double* numbers = m.shared.numbers;
    double n_steps = double(m.shared.counters[N_STEPS]);
    if (loss < rules.stop_loss || (loss == 0.0 && n_steps > 0.0) || time >= rules.t_max)
        return true;
    if (time >= rules.steady_min_time && loss > 0.0) {
        double marked_time = numbers[MARKED_TIME], marked_loss = numbers[MARKED_LOSS];
        if (marked_loss != marked_loss) {
            marked_time = time;
            marked_loss = loss;
        }
        if (time > rules.steady_window * marked_time) {
            double slope = log(loss / marked_loss) / log(time / marked_time);
            if (fabs(slope) < rules.steady_slope)
                return true;
            marked_time = time;
            marked_loss = loss;
        }
        if (n_steps < rules.max_steps) {
            numbers[MARKED_TIME] = marked_time;
            numbers[MARKED_LOSS] = marked_loss;
        }
    }
    return n_steps >= rules.max_steps;
}

// Last row and relative changes; a member that is unfit here has none.
DEVICE int end(const Member& m, int ending) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    shared.counters[ENDING] = ending;
    if (ending == UNFIT)
        return LEAVE;
    int order = RECORD;
    order |= kept.latest[0] < kept.time ? IN_ROWS : 0;
    order |= kept.latest[1] < kept.time ? IN_SNAPSHOTS : 0;
    shared.moment = kept.time;
    return go(shared, FINISHED, order);
}

DEVICE int finish(const Member& m) {
    Shared& shared = m.shared;
    if (!shared.room)
        shared.counters[ENDING] = UNFIT;
    shared.numbers[TIME] = shared.kept.time;
    shared.numbers[LAST_STEP] = shared.kept.step;
    for (int layer = 0; layer < 3; ++layer)
        m.members.change[3 * m.index + layer] = shared.change[layer];
    return LEAVE;
}

// All that is kept begins here: outputs of the initial values, which no weight moves.
DEVICE int begin(const Member& m) {
    Shared& shared = m.shared;
    shared.kept.begun = 1;
    shared.kept.shrink = 1.0;
    shared.counters[N_PASSES] = 1;
    shared.numbers[MARKED_LOSS] = NOT_A_NUMBER;
    for (int layer = 0; layer < 3; ++layer)
        shared.sup_change[layer] = NOT_A_NUMBER;
    shared.first = 0;
    for (int stage = 0; stage < STAGES; ++stage) {
        shared.weights[stage] = 0;
#pragma unroll UNROLLED
        for (int i = 0; i <= N_SAMPLES; ++i)
            for (int j = 0; j < N_INPUTS; ++j)
                shared.pull[stage].row[i][j] = 0;
    }
    return go(shared, FIRST_OUTPUTS, REACH);
}

DEVICE int after_first_row(const Member& m) {
    Shared& shared = m.shared;
    shared.kept.step = NOT_A_NUMBER;  // there is none yet
    bool finite = isfinite(shared.kept.loss);
#pragma unroll UNROLLED
    for (int i = 0; i < N_SAMPLES; ++i)
        finite = finite && isfinite(shared.kept.residual[i]);
    if (!finite)
        return end(m, NOT_FINITE_AT_START);
    if (rule_ends(m, 0.0, shared.kept.loss))
        return end(m, BY_RULE);
    shared.counters[N_PASSES] += 1;
    return go(shared, AFTER_GRAMS, GRAMS);
}

// The step and its weights, with the bound on the weights' relative `speed`.
DEVICE int choose_step(const Member& m, double speed) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    double by_kernel = kept.rate > 0.0 ? m.control.fraction / kept.rate : INFINITE;
    double by_change = speed > 0.0 ? m.control.change / speed : INFINITE;
    double late = kept.rate > 0.0 ? m.control.late_fraction / kept.rate : INFINITE;
    late = fmin(late, m.control.late * by_change);
    double longest = fmin(fmax(by_kernel, late), by_change);
    double step = kept.shrink * longest, left = m.rules.t_max - kept.time;
    step = left < step ? left : step;
    if (!isfinite(step))  // nothing moves: any step is exact
        step = fmax(1.0, kept.time);
    kept.step = step;
    shared.speed = speed;
    shared.first = REAL(m.control.first * step);
    for (int stage = 0; stage < STAGES; ++stage)
        shared.weights[stage] = REAL(m.control.b[stage] * step);
    return STAGES == 2 ? go(shared, AFTER_STAGE, STAGE) : go(shared, AFTER_STEP, REACH | KEEP);
}

// The next step, or what has to come before it; 0 to choose the step at once.
DEVICE int next_step(const Member& m) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    if (shared.counters[N_PASSES] > m.control.max_passes)
        return end(m, UNFIT);
    bool old = kept.age >= m.control.max_age;
    if (!(old || kept.drift > m.control.max_drift * m.control.change))
        return 0;
    shared.counters[N_PASSES] += 1;
    return go(shared, AFTER_GRAMS, GRAMS);
}

// A launch may end between two steps.
DEVICE int pause(const Member& m, int order) {
    m.shared.steps_left -= 1;
    return go(m.shared, BETWEEN_STEPS, m.shared.steps_left > 0 ? order : order | LEAVE);
}

// A step that is not taken: it is tried again from a fresh tangent kernel, or shorter.
DEVICE int reject(const Member& m, bool finite) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    if (kept.age > 0) {
        // Older than any may be: the next one is the first of the next try.
        kept.age = m.control.max_age;
    } else
        kept.shrink *= 0.5;
    kept.in_a_row += 1;
    shared.counters[N_REJECTED] += 1;
    bool at_rest = finite && kept.shrink <= m.control.at_rest;
    bool too_small = kept.step <= 4.0 * EPSILON * kept.time;
    if (!(too_small || at_rest || kept.in_a_row >= m.control.max_rejections))
        return pause(m, 0);
    shared.numbers[REJECTED_ROW] = double(kept.in_a_row);
    if (at_rest)
        return end(m, HOPELESS_REST);
    return end(m, finite ? HOPELESS_LOSS : HOPELESS_NON_FINITE);
}

// The member goes on from the end of the step, or ends there.
DEVICE int settle(const Member& m) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    kept.time = shared.end;
    kept.loss = shared.end_loss;
#pragma unroll UNROLLED
    for (int i = 0; i < N_SAMPLES; ++i)
        kept.residual[i] = shared.reached[i];
    if (rule_ends(m, kept.time, kept.loss))
        return end(m, BY_RULE) | SWAP;
    return pause(m, SWAP);
}

// What is due in the step, one moment after the other, and then its end.
DEVICE int look_back(const Member& m) {
    Shared& shared = m.shared;
    double moments[2];
    int found = look_for_moments(m, moments);
    if (found == BEYOND)
        return end(m, UNFIT);
    if (found == SOMETHING) {
        int due = next_due(m, moments);
        if (due & THERE)
            return go(shared, AFTER_ROW, RECORD | due);
        shared.due = RECORD | due;
        return go(shared, INSIDE_STEP, REACH);
    }
    if (shared.end_fraction == 1.0)
        return SETTLE;
    set_fraction(m, shared.end_fraction);
    return go(shared, AT_CROSSING, REACH | KEEP);
}

// What becomes of the step just taken.
DEVICE int judge(const Member& m, double loss, bool finite) {
    Shared& shared = m.shared;
    Kept& kept = shared.kept;
    shared.counters[N_RHS] += STAGES;
    shared.counters[N_PASSES] += STAGES;
    if (!(finite && loss <= kept.loss))
        return reject(m, finite);
    kept.drift += kept.step * shared.speed;
    kept.age += 1;
    kept.shrink = fmin(1.0, 1.5 * kept.shrink);
    kept.in_a_row = 0;
    shared.counters[N_STEPS] += 1;
    shared.end = kept.time + kept.step;
    shared.end_loss = loss;
    shared.end_fraction = 1.0;
    return falls_below(m) ? GUESS : LOOK_BACK;
}

// Makes of the latest pass what its phase makes of it; in the first warp, whose lanes do the sums
// over samples.
DEVICE int conclude(const Member& m, int phase) {
    Shared& shared = m.shared;
    double* e = shared.reached;
    if (phase == FIRST_OUTPUTS)
        e = shared.kept.residual;
    if (phase == AFTER_GUESS || phase == INSIDE_STEP)
        e = shared.found;
    double loss = 0.0;
    bool finite = true;
    if (e != shared.reached || phase == AFTER_STAGE || phase == AFTER_STEP) {
        take_residual(m.problem, shared, e);
        loss = half_mean_square(e);
        finite = all_finite(e);
    }
    if (phase == AFTER_STAGE)
        make_pull(m.problem, shared, e, STAGES - 1);
    if (phase == AFTER_GRAMS)
        take_kernel(m.problem, shared);
    if (lane() != 0)
        return 0;
    int order = 0;
    switch (phase) {
    case BEGINNING:
        order = begin(m);
        break;
    case FIRST_OUTPUTS:
        shared.kept.loss = loss;
        shared.moment = 0.0;
        order = go(shared, FIRST_ROW, RECORD | IN_ROWS | IN_SNAPSHOTS);
        break;
    case FIRST_ROW:
        order = after_first_row(m);
        break;
    case AFTER_STAGE:
        order = go(shared, AFTER_STEP, REACH | KEEP);
        break;
    case AFTER_STEP:
        order = judge(m, loss, finite);
        break;
    case AFTER_GUESS:
        order = narrow_down(m, loss) ? LOOK_BACK : GUESS;
        break;
    case INSIDE_STEP:
        order = go(shared, AFTER_ROW, shared.due);
        break;
    case AFTER_ROW:
        order = shared.room ? LOOK_BACK : end(m, UNFIT);
        break;
    case AT_CROSSING:
        order = SETTLE;
        break;
    case FINISHED:
        order = finish(m);
        break;
    }
    if (order == GUESS)
        order = go(shared, AFTER_GUESS, next_guess(m));
    if (order == LOOK_BACK)
        order = look_back(m);
    return order == SETTLE ? settle(m) : order;
}

// What the block does next; in the first warp, of which lane 0 knows.
DEVICE int decide(const Member& m) {
    Shared& shared = m.shared;
    int phase = shared.phase;
    __syncwarp();
    int order = conclude(m, phase);
    bool chooses = phase == AFTER_GRAMS;
    // Compilers have all lanes read it: between two barriers then, as what lane 0 writes here too.
    __syncwarp();
    bool between = shared.phase == BETWEEN_STEPS;
    __syncwarp();
    if (lane() == 0 && between && !(order & LEAVE)) {
        int before = next_step(m);
        chooses = before == 0;
        order |= before;
    }
    __syncwarp();
    if (__any_sync(ALL_LANES, chooses)) {
        make_pull(m.problem, shared, shared.kept.residual, 0);
        double speed = relative_speed(shared);
        if (lane() == 0)
            order |= choose_step(m, speed);
    }
    return order;
}

DEVICE void copy_words(void* to, const void* from, int64 bytes) {
    for (int k = threadIdx.x; k < bytes / 8; k += THREADS)
        static_cast<int64*>(to)[k] = static_cast<const int64*>(from)[k];
}

// What is kept of a member between launches goes into the block, or out of it.
DEVICE void exchange(const Member& m, bool in) {
    const Members& members = m.members;
    Shared& shared = m.shared;
    int64 words = sizeof(Kept) / 8;
    if (in) {
        copy_words(&shared.kept, members.kept + m.index * words, sizeof(Kept));
        copy_words(shared.numbers, members.numbers + m.index * N_NUMBERS, 8 * N_NUMBERS);
        copy_words(shared.counters, members.counters + m.index * N_COUNTERS, 8 * N_COUNTERS);
        copy_words(shared.sup_change, members.sup_change + m.index * 3, 8 * 3);
        copy_words(shared.scale, members.scales + m.index * 4, 8 * 4);
        copy_words(shared.x, m.problem.x, sizeof(shared.x));
    } else {
        copy_words(members.kept + m.index * words, &shared.kept, sizeof(Kept));
        copy_words(members.numbers + m.index * N_NUMBERS, shared.numbers, 8 * N_NUMBERS);
        copy_words(members.counters + m.index * N_COUNTERS, shared.counters, 8 * N_COUNTERS);
        copy_words(members.sup_change + m.index * 3, shared.sup_change, 8 * 3);
        copy_words(members.residual + m.index * N_SAMPLES, shared.kept.residual, 8 * N_SAMPLES);
    }
}

extern __shared__ double dynamic[];

// Takes members on by at most so many steps each; a block a member.
KERNEL void __launch_bounds__(THREADS, LEAST_BLOCKS) run_members(
    const __grid_constant__ Problem problem, const __grid_constant__ Rules rules,
    const __grid_constant__ Control control, const __grid_constant__ Schedules schedules,
    const __grid_constant__ Members members, const int64* active, int64 most_steps
) {
    __shared__ Shared shared;
    int64 index = active[blockIdx.x], size = ROWS * problem.neurons;
    REAL* theta = members.theta + index * size;
    REAL* first = IN_SHARED ? reinterpret_cast<REAL*>(dynamic) : theta;
    REAL* second = IN_SHARED ? first + size : members.spare + blockIdx.x * size;
    Member m = {
        problem, rules, control, schedules, members, shared, index, int(problem.neurons), first,
        second
    };
    exchange(m, true);
    if (IN_SHARED)
        for (int k = threadIdx.x; k < size; k += THREADS)
            first[k] = theta[k];
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.factors[0] = REAL(-shared.scale[1]);
        shared.factors[1] = REAL(-shared.scale[2]);
        shared.phase = shared.kept.begun ? BETWEEN_STEPS : BEGINNING;
        shared.steps_left = most_steps;
    }
    __syncthreads();
    for (;;) {
        if (first_warp()) {
            int order = decide(m);
            if (lane() == 0)
                shared.order = order;
        }
        __syncthreads();
        int order = shared.order;
        if (order & SWAP) {
            REAL* passed = m.here;
            m.here = m.there;
            m.there = passed;
        }
        // Every pass has a barrier: the next order is given when all have read this one.
        if (order & LEAVE)
            break;
        if (order & GRAMS)
            gram_pass(m);
        else if (order & STAGE)
            outputs_pass<false>(m, N_SAMPLES > GROUP);
        else if (order & REACH)
            outputs_pass<true>(m, order & KEEP);
        else
            record(m, order);
    }
    if (m.here != theta)
        for (int k = threadIdx.x; k < size; k += THREADS)
            theta[k] = m.here[k];
    exchange(m, false);
}
