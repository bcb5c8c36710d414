// What every kernel begins with. Compiled by NVRTC without any header.
//
// Macros that are always given: REAL (double or float), and where an activation is evaluated
// VALUE(z) and DERIVATIVE(z) come from flowsim.kernels.cuda.activations as the function
// activation(z, value, derivative) behind this text.

typedef unsigned int uint32;
typedef long long int64;

#define KERNEL extern "C" __global__
#define DEVICE static __device__ __forceinline__

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Sums over the lanes of a warp in an order that is always the same; the sum is in every lane.
DEVICE double warp_sum(double value) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}
