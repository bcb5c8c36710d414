// What every kernel begins with. Compiled by NVRTC without any header.
//
// Macros that are always given: REAL (double or float) and THREADS (of a block), and where an activation is evaluated
// VALUE(z) and DERIVATIVE(z) come from flowsim.kernels.cuda.activations as the function
// activation(z, value, derivative) behind this text.

typedef unsigned int uint32;
typedef long long int64;

#define KERNEL extern "C" __global__
#define DEVICE static __device__ __forceinline__

constexpr int WARP = 32;
constexpr int WARPS = THREADS / WARP;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Sums over the lanes of a warp in an order that is always the same; the sum is in every lane.
DEVICE double warp_sum(double value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// The sum of a value of every thread, in thread 0.
DEVICE double block_sum(double value) {
    __shared__ double together[WARPS];
    const double sum = warp_sum(value);
    if (threadIdx.x % WARP == 0) together[threadIdx.x / WARP] = sum;
    __syncthreads();
    double total = 0.0;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) total += together[warp];
    return total;
}
