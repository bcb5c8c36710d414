// Rows and snapshots of a member, and where it falls below the wanted loss.
//
// As flowsim.kernels.cpu.member_rows has it. But for `record` one thread does what is here.

enum {
    GRAMS = 1, STAGE = 2, REACH = 4, RECORD = 8,  // the passes
    KEEP = 16,                                    // of REACH: the state goes `there`
    IN_ROWS = 32, IN_SNAPSHOTS = 64, INSIDE = 128, THERE = 256,  // of RECORD
    SWAP = 512,  // before it: the member has come to the end of its step
    LEAVE = 1024
};
// Orders to the block.

// RD and norms of (input, output, all) from what `measuring_pass` has left.
DEVICE void take_changes(Shared& shared) {
    const double* squares = shared.totals;
    for (int layer = 0; layer < 3; ++layer) {
        double of[3];
#pragma unroll
        for (int what = 0; what < 3; ++what) {
            double input = squares[2 * what], output = squares[2 * what + 1];
            of[what] = layer == 0 ? input : layer == 1 ? output : input + output;
        }
        double moved = sqrt(of[0]), change = moved == 0.0 ? 0.0 : moved / sqrt(of[1]);
        shared.change[layer] = change;
        shared.norm[layer] = sqrt(of[2]);
        // Like fmax: what is not a number does not count.
        double known = shared.sup_change[layer];
        if (known != known || change > known)
            shared.sup_change[layer] = change;
    }
}

DEVICE void write_row(const Member& m, double* row, double loss) {
    const Shared& shared = m.shared;
    double drift = 0.0, dead = shared.totals[6];
    for (int warp = 0; warp < WARPS; ++warp)
        drift = larger(drift, shared.warp_drift[warp]);
    row[0] = shared.moment;
    row[1] = double(shared.counters[N_STEPS]);
    row[2] = loss;
    row[3] = shared.kept.step;
    row[4] = double(shared.counters[N_RHS]);
    row[5] = double(shared.counters[N_PASSES]);
    row[6] = double(shared.counters[N_REJECTED]);
    row[7] = drift;
    row[8] = m.neurons - dead;
    row[9] = dead;
    for (int layer = 0; layer < 3; ++layer) {
        row[10 + layer] = shared.change[layer];
        row[13 + layer] = shared.norm[layer];
    }
}

// Adds a row, a snapshot or both at shared.moment; shared.room says whether there was room.
DEVICE void record(const Member& m, int order) {
    Shared& shared = m.shared;
    const Members& members = m.members;
    bool in_rows = order & IN_ROWS, inside = order & INSIDE;
    bool in_snapshots = (order & IN_SNAPSHOTS) && members.snapshot_room > 0;
    int64 row_at = shared.counters[N_ROWS], snapshot_at = shared.counters[N_SNAPSHOTS];
    bool room = !(in_rows && row_at >= members.row_room);
    room = room && !(in_snapshots && snapshot_at >= members.snapshot_room);
    int64 place = snapshot_at * members.count + m.index;
    REAL* snapshot = room && in_snapshots ? members.snapshots + place * m.size() : nullptr;
    measuring_pass(m, order & THERE ? m.there : m.here, inside, snapshot);
    if (!first_warp())
        return;
    const double* e = inside ? shared.found : order & THERE ? shared.reached : shared.kept.residual;
    double loss = half_mean_square(e);
    int64 columns = FIXED_COLUMNS + N_SAMPLES;
    double* row = members.rows + (row_at * members.count + m.index) * columns;
    in_rows = in_rows && room;
    if (in_rows && lane() < N_SAMPLES)
        row[FIXED_COLUMNS + lane()] = e[lane()];
    if (lane() == 0) {
        shared.room = room;
        take_changes(shared);
        if (in_rows) {
            write_row(m, row, loss);
            shared.counters[N_ROWS] += 1;
        }
        if (snapshot) {
            members.snapshot_times[place] = shared.moment;
            shared.counters[N_SNAPSHOTS] += 1;
        }
    }
    __syncwarp();
}

// Moments up to here are not due in the step from `before` to `after`.
DEVICE double lowest_due(const Schedule& schedule, double before, double after) {
    double first = schedule.first;
    // The first step has infinitely many decades behind it: its end is early enough.
    if (first != first)
        first = before == 0.0 ? after : before;
    return fmax(before, 0.999999 * first);
}

// The next moment in (lowest, after], whose place goes into `position`; infinity if there is none.
DEVICE double next_moment(
    const Schedule& schedule, int64& position, double lowest, double after
) {
    while (position < schedule.count && schedule.moments[position] <= lowest)
        ++position;
    bool due = position < schedule.count && schedule.moments[position] <= after;
    return due ? schedule.moments[position] : INFINITE;
}

enum { NOTHING, SOMETHING, BEYOND };

// Whether anything is due in the step, and its moments by series; BEYOND the times that schedules
// have moments for the member has to be run in another way.
DEVICE int look_for_moments(const Member& m, double (&moments)[2]) {
    Shared& shared = m.shared;
    double before = shared.kept.time, after = shared.end;
    int found = NOTHING;
#pragma unroll
    for (int series = 0; series < 2; ++series) {
        const Schedule& schedule = m.schedules.series[series];
        double lowest = lowest_due(schedule, before, after);
        if (lowest < schedule.least || after > schedule.most)
            return BEYOND;
        moments[series] = next_moment(schedule, shared.kept.positions[series], lowest, after);
        if (moments[series] < INFINITE)
            found = SOMETHING;
    }
    return found;
}

// The weights of the slopes lead to a fraction of the step.
DEVICE void set_fraction(const Member& m, double fraction) {
    double step = m.shared.kept.step;
    for (int j = 0; j < STAGES; ++j) {
        double total = 0.0;
        for (int k = STAGES - 1; k >= 0; --k)
            total = (total + m.control.dense[j][k]) * fraction;
        m.shared.weights[j] = REAL(total * step);
    }
}

// What is due next within the step becomes shared.moment: how it is to be recorded, or 0.
DEVICE int next_due(const Member& m, const double (&moments)[2]) {
    Shared& shared = m.shared;
    double moment = fmin(moments[0], moments[1]);
    int due = 0;
#pragma unroll
    for (int series = 0; series < 2; ++series)
        if (moments[series] == moment) {
            due |= series == 0 ? IN_ROWS : IN_SNAPSHOTS;
            shared.kept.positions[series] += 1;
            shared.kept.latest[series] = moment;
        }
    shared.moment = moment;
    if (moment == shared.end && shared.end_fraction == 1.0)
        return due | THERE;
    double fraction = (moment - shared.kept.time) / shared.kept.step;
    set_fraction(m, moment == shared.end ? shared.end_fraction : fraction);
    return due | INSIDE;
}

DEVICE double wanted_log_loss(const Member& m) {
    return log(m.rules.stop_loss) - 1e-6;
}

// Whether R falls below the wanted loss in the step just taken; shared.bracket then holds both ends.
DEVICE bool falls_below(const Member& m) {
    Shared& shared = m.shared;
    double before = shared.kept.loss, after = shared.end_loss, bound = m.rules.stop_loss;
    if (!(0.0 < after && after < bound && bound <= before))
        return false;
    double target = wanted_log_loss(m);
    double* bracket = shared.bracket;
    bracket[0] = 0.0;
    bracket[1] = log(before) - target;
    bracket[2] = 1.0;
    bracket[3] = log(after) - target;
    bracket[4] = bracket[5] = 0.0;
    return bracket[3] < 0.0;
}

DEVICE int next_guess(const Member& m) {
    m.shared.moment = guess(m.shared.bracket);
    set_fraction(m, m.shared.moment);
    return REACH;
}

// Takes in R at the latest guess, with e in shared.found; true once the crossing is found, which
// then is the end of the step. There may turn out to be none.
DEVICE bool narrow_down(const Member& m, double loss) {
    Shared& shared = m.shared;
    shared.counters[N_RHS] += STAGES == 1;
    shared.counters[N_PASSES] += 1;
    if (!narrow(shared.bracket, shared.moment, log(loss) - wanted_log_loss(m)))
        return false;
    if (loss < m.rules.stop_loss) {
        shared.end_fraction = shared.moment;
        shared.end = shared.kept.time + shared.moment * shared.kept.step;
        shared.end_loss = loss;
#pragma unroll UNROLLED
        for (int i = 0; i < N_SAMPLES; ++i)
            shared.reached[i] = shared.found[i];
    }
    return true;
}
