// Members of an ensemble: shapes, what a launch is given, and what a block keeps.
//
// Macros: N_SAMPLES (n, at most a warp), N_INPUTS (d), LEAKY (whether the activation has a slope
// where z <= 0), STAGES of the method (1 or 2), THREADS of a block, IN_SHARED (whether the states
// have room in shared memory). The structures are those of flowsim.kernels.cuda.member_data, field by
// field; all their parts are 8 bytes wide but for the points.

constexpr int ROWS = 1 + N_INPUTS;
constexpr int GROUP = N_SAMPLES <= 8 ? N_SAMPLES : 8;  // samples whose sums are in registers
constexpr int TILE = N_SAMPLES <= 4 ? N_SAMPLES : 4;   // the same for products of samples
constexpr int PADDED = N_SAMPLES <= 4 ? N_SAMPLES : (N_SAMPLES + 7) / 8 * 8;
constexpr int UNROLLED = N_SAMPLES <= 8 ? N_SAMPLES : 4;
constexpr int LEAKS = LEAKY ? N_INPUTS : 0;
constexpr int EDGE = N_SAMPLES | 1;  // of a matrix: an odd row keeps a column out of one bank
// Threads of a multiprocessor: 128 registers each, or 255 for neurons with many inputs.
constexpr int RESIDENT = N_INPUTS <= 3 ? 512 : 256;
constexpr int LEAST_BLOCKS = RESIDENT / THREADS;

static_assert(N_SAMPLES <= WARP && STAGES <= 2 && RESIDENT % THREADS == 0, "see above");

// Columns of the members' numbers and counters, and endings: flowsim.kernels.cpu.member_data.
enum { TIME, LAST_STEP, MARKED_TIME, MARKED_LOSS, REJECTED_ROW, N_NUMBERS };
enum { ENDING, N_STEPS, N_REJECTED, N_RHS, N_PASSES, N_ROWS, N_SNAPSHOTS, N_COUNTERS };
enum { BY_RULE = 1, HOPELESS_LOSS, HOPELESS_REST, HOPELESS_NON_FINITE, NOT_FINITE_AT_START, UNFIT };
constexpr int FIXED_COLUMNS = 16;
constexpr double EPSILON = 2.220446049250313e-16;

struct Problem {
    const double* x;  // (n, d)
    const double* y;
    const double* inner;  // (n, n)
    double leak;
    int64 neurons, width;
    REAL points[PADDED][N_INPUTS];  // x in the dtype of the states, zeros after it
};

struct Rules {
    double stop_loss, t_max, max_steps, steady_slope, steady_min_time, steady_window;
};

struct Control {
    double fraction, change, late_fraction, late, max_drift, at_rest;
    int64 max_age, max_rejections, max_passes;
    double first;  // a of the second stage
    double b[STAGES], dense[STAGES][STAGES];
};

struct Schedule {
    const double* moments;
    int64 count;
    double first, least, most;
};

struct Schedules {
    Schedule series[2];  // of rows and snapshots
};

// Of all members; B of them.
struct Members {
    REAL* theta;          // (B, 1 + d, neurons), initial values and then the present ones
    const REAL* initial;  // (B, 1 + d, neurons)
    REAL* spare;          // (blocks, 1 + d, neurons), where the states are not in shared memory
    const double* scales;  // (B, 4): multiplier, mobilities of output and input, multiplier^2
    double* residual;      // (B, n)
    double* numbers;
    int64* counters;
    double *change, *sup_change;  // (B, 3)
    double* rows;            // (row_room, B, FIXED_COLUMNS + n)
    double* snapshot_times;  // (snapshot_room, B)
    REAL* snapshots;         // (snapshot_room, B, 1 + d, neurons)
    double* kept;            // (B, sizeof(Kept) / 8)
    int64 count, row_room, snapshot_room;
};

// What the next step of a member depends on besides its weights, its numbers and its counters.
struct Kept {
    double time, loss, step, rate, drift, shrink;
    double latest[2], sizes[2];
    double residual[N_SAMPLES];
    double grams[2][N_SAMPLES][N_SAMPLES];  // of (input, output)
    int64 age, in_a_row, begun, positions[2];
};

static_assert(sizeof(Kept) == 8 * (15 + N_SAMPLES + 2 * N_SAMPLES * N_SAMPLES), "no padding");

// What each sample adds to a neuron's pull sum_i e_i sigma'(z_i) x_i where it is active, and last
// what there is where none is.
struct Pull {
    REAL row[N_SAMPLES + 1][N_INPUTS];
};

// What the threads of a block share. The first warp writes; the others read what lies between two
// barriers, and nothing but inputs, pulls and weights.
struct Shared {
    Kept kept;
    double numbers[N_NUMBERS], scale[4], change[3], norm[3], sup_change[3];
    int64 counters[N_COUNTERS];
    double x[N_SAMPLES][N_INPUTS];
    double reached[N_SAMPLES];  // e after a stage, or at the end of the step
    double found[N_SAMPLES];    // e within the step
    double speed, end, end_loss, end_fraction, moment;
    double bracket[6];
    REAL factors[2];  // minus the mobilities of output and input weights
    REAL first;       // weight of the first slope on the way to the second stage
    REAL weights[STAGES];
    Pull pull[STAGES];
    double matrix[N_SAMPLES][EDGE], diagonal[N_SAMPLES], off_diagonal[N_SAMPLES];
    double warp_sums[WARPS][WARP], warp_drift[WARPS], totals[PADDED + N_INPUTS + WARP];
    int64 steps_left;
    int phase, order, due;
    bool room;
};

#define METHOD __device__ __forceinline__
#define INFINITE __longlong_as_double(0x7ff0000000000000LL)
#define NOT_A_NUMBER __longlong_as_double(0x7ff8000000000000LL)

DEVICE int lane() {
    return threadIdx.x % WARP;
}

DEVICE bool first_warp() {
    return threadIdx.x < WARP;
}

// A member in its block. The states lie `here`, and `there` at the end of the step.
struct Member {
    const Problem& problem;
    const Rules& rules;
    const Control& control;
    const Schedules& schedules;
    const Members& members;
    Shared& shared;
    int64 index;
    int neurons;
    REAL *here, *there;

    METHOD int64 size() const {
        return int64(ROWS) * neurons;
    }
};
