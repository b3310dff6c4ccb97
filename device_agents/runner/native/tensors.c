#include "tensors.h"

#include <string.h>

unsigned type_bits(int type)
{
    switch (type) {
    case TYPE_INT2:
        return 2;
    case TYPE_INT4:
        return 4;
    case TYPE_BOOL:
    case TYPE_INT8:
    case TYPE_UINT8:
        return 8;
    case TYPE_INT16:
    case TYPE_UINT16:
    case TYPE_FLOAT16:
    case TYPE_BFLOAT16:
        return 16;
    case TYPE_FLOAT32:
    case TYPE_INT32:
    case TYPE_UINT32:
        return 32;
    case TYPE_FLOAT64:
    case TYPE_INT64:
    case TYPE_UINT64:
    case TYPE_COMPLEX64:
        return 64;
    case TYPE_COMPLEX128:
        return 128;
    default:
        return 0;
    }
}

uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Draw a number from -1 up to 1 that float32 holds exactly. */
static float next_real(uint64_t *state)
{
    return (float)(int32_t)(next_random(state) >> 40) / (float)(1 << 23) - 1.0f;
}

/* Make the 16 bits of a normal half from a number of a normal half's size; the rest of the mantissa is cut off. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t exponent = bits >> 23 & 255;
    uint32_t sign = bits >> 16 & 0x8000;
    if (exponent < 113) /* below 2^-14: what would be denormal becomes zero */
        return (uint16_t)sign;
    return (uint16_t)(sign | (exponent - 112) << 10 | (bits >> 13 & 0x3ff));
}

static void fill_real(int type, unsigned char *data, size_t count, uint64_t *state)
{
    for (size_t i = 0; i < count; i++) {
        float value = next_real(state);
        double wide = (double)value;
        uint16_t half = half_of(value);
        if (type == TYPE_FLOAT32)
            memcpy(data + i * sizeof value, &value, sizeof value);
        else if (type == TYPE_FLOAT64)
            memcpy(data + i * sizeof wide, &wide, sizeof wide);
        else if (type == TYPE_FLOAT16)
            memcpy(data + i * sizeof half, &half, sizeof half);
        else /* bfloat16: the upper half of a little-endian float32 */
            memcpy(data + i * sizeof half, (const char *)&value + 2, sizeof half);
    }
}

static void fill_bytes(unsigned char *data, size_t bytes, uint64_t *state)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)(next_random(state) >> 56);
}

/* Wide integers are mostly indices: 0 and 1 keep them valid. */
static void fill_wide(unsigned char *data, size_t bytes, size_t each, uint64_t *state)
{
    memset(data, 0, bytes);
    for (size_t i = 0; i < bytes; i += each)
        data[i] = (unsigned char)(next_random(state) >> 63);
}

bool fill_values(int type, void *data, size_t bytes, uint64_t seed)
{
    uint64_t state = seed;
    size_t each = type_bits(type) / 8;
    switch (type) {
    case TYPE_FLOAT16:
    case TYPE_BFLOAT16:
    case TYPE_FLOAT32:
    case TYPE_FLOAT64:
        fill_real(type, data, bytes / each, &state);
        return true;
    case TYPE_INT2:
    case TYPE_INT4:
    case TYPE_INT8:
    case TYPE_UINT8:
        fill_bytes(data, bytes, &state);
        return true;
    case TYPE_BOOL:
    case TYPE_INT16:
    case TYPE_UINT16:
    case TYPE_INT32:
    case TYPE_UINT32:
    case TYPE_INT64:
    case TYPE_UINT64:
        fill_wide(data, bytes, each, &state);
        return true;
    default:
        return false;
    }
}

/* Tell from the bits: a library may have told the CPU to take denormal numbers for zero. */
static bool is_denormal(uint64_t bits, int mantissa_bits, int exponent_bits)
{
    uint64_t mantissa = bits & ((UINT64_C(1) << mantissa_bits) - 1);
    uint64_t exponent = bits >> mantissa_bits & ((UINT64_C(1) << exponent_bits) - 1);
    return exponent == 0 && mantissa != 0;
}

bool has_denormals(int type, const void *data, size_t bytes)
{
    const char *at = data, *end = at + bytes;
    if (type == TYPE_FLOAT32) {
        for (uint32_t bits; end - at >= (ptrdiff_t)sizeof bits; at += sizeof bits) {
            memcpy(&bits, at, sizeof bits);
            if (is_denormal(bits, 23, 8))
                return true;
        }
    } else if (type == TYPE_FLOAT64) {
        for (uint64_t bits; end - at >= (ptrdiff_t)sizeof bits; at += sizeof bits) {
            memcpy(&bits, at, sizeof bits);
            if (is_denormal(bits, 52, 11))
                return true;
        }
    }
    return false; /* half precision has none that a CPU, which computes in float32, would find slow */
}
