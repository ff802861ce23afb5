// The four inner loops of engine.js on four numbers at once (WebAssembly SIMD, 128 bits), under the same names and with
// the same meaning. All memory is the caller's; there is no library, no state and no allocation.
//
//   clang --target=wasm32 -O3 -msimd128 -nostdlib -ffreestanding -Wl,--no-entry -Wl,--import-memory -Wl,--strip-all
//         -Wl,--export=product -Wl,--export=prelu -Wl,--export=softmax -Wl,--export=recur -o products.wasm products.c
//
// Rows lie `step` numbers apart. Where a row is no multiple of four long, up to three numbers behind it are read and not
// used; the caller leaves room for that at the end of its memory.
#include <wasm_simd128.h>

static v128_t load(const float* p) { return wasm_v128_load(p); }

/** Write the first `count` (1 to 4, or more) of four numbers. */
static void store(float* p, v128_t v, int count) {
  if (count >= 4) { wasm_v128_store(p, v); return; }
  p[0] = wasm_f32x4_extract_lane(v, 0);
  if (count > 1) p[1] = wasm_f32x4_extract_lane(v, 1);
  if (count > 2) p[2] = wasm_f32x4_extract_lane(v, 2);
}

static v128_t add(v128_t a, v128_t b) { return wasm_f32x4_add(a, b); }
static v128_t mul(v128_t a, v128_t b) { return wasm_f32x4_mul(a, b); }
static v128_t all(float x) { return wasm_f32x4_splat(x); }

/** y[r][o] = bias[o] + sum over i of x[r][i] weight[i][o]: four rows by eight columns stay in registers. */
void product(float* y, int yStep, const float* x, int xStep, const float* weight, int wStep, const float* bias,
             int rows, int inputs, int outputs) {
  for (int r = 0; r < rows; r += 4) {
    const int left = rows - r, one = left > 1, two = left > 2, three = left > 3;  // absent rows repeat the first
    const float *x0 = x + r * xStep, *x1 = x0 + one * xStep, *x2 = x0 + 2 * two * xStep, *x3 = x0 + 3 * three * xStep;
    float* out = y + r * yStep;
    for (int o = 0; o < outputs; o += 8) {
      const int wide = outputs - o > 4 ? 4 : 0, count = outputs - o;
      v128_t a0 = load(bias + o), b0 = load(bias + o + wide), a1 = a0, a2 = a0, a3 = a0, b1 = b0, b2 = b0, b3 = b0;
      const float* w = weight + o;
      for (int i = 0; i < inputs; i++, w += wStep) {
        const v128_t wa = load(w), p0 = all(x0[i]), p1 = all(x1[i]), p2 = all(x2[i]), p3 = all(x3[i]);
        a0 = add(a0, mul(p0, wa)); a1 = add(a1, mul(p1, wa)); a2 = add(a2, mul(p2, wa)); a3 = add(a3, mul(p3, wa));
        if (!wide) continue;
        const v128_t wb = load(w + 4);
        b0 = add(b0, mul(p0, wb)); b1 = add(b1, mul(p1, wb)); b2 = add(b2, mul(p2, wb)); b3 = add(b3, mul(p3, wb));
      }
      float *y0 = out + o, *y1 = y0 + yStep, *y2 = y1 + yStep, *y3 = y2 + yStep;
      store(y0, a0, count);
      if (one) store(y1, a1, count);
      if (two) store(y2, a2, count);
      if (three) store(y3, a3, count);
      if (!wide) continue;
      store(y0 + 4, b0, count - 4);
      if (one) store(y1 + 4, b1, count - 4);
      if (two) store(y2 + 4, b2, count - 4);
      if (three) store(y3 + 4, b3, count - 4);
    }
  }
}

/** y[r][o] = y[r][o] where it is above zero, slope[o] y[r][o] where not. */
void prelu(float* y, const float* slope, int rows, int outputs) {
  const v128_t zero = all(0);
  for (int r = 0; r < rows; r++, y += outputs) {
    for (int o = 0; o < outputs; o += 4) {
      const v128_t v = load(y + o);
      store(y + o, add(wasm_f32x4_max(v, zero), mul(load(slope + o), wasm_f32x4_min(v, zero))), outputs - o);
    }
  }
}

/** e to the x: 2^n times a polynomial over half an octave to both sides (Cody and Waite's reduction), to a unit in the last
    place or two. */
static v128_t exponential(v128_t x) {
  x = wasm_f32x4_min(wasm_f32x4_max(x, all(-87.0f)), all(87.0f));
  const v128_t n = wasm_f32x4_nearest(mul(x, all(1.44269504f)));
  x = add(add(x, mul(n, all(-0.693359375f))), mul(n, all(2.12194440e-4f)));
  v128_t p = all(1.9875691500e-4f);
  p = add(mul(p, x), all(1.3981999507e-3f));
  p = add(mul(p, x), all(8.3334519073e-3f));
  p = add(mul(p, x), all(4.1665795894e-2f));
  p = add(mul(p, x), all(1.6666665459e-1f));
  p = add(mul(p, x), all(5.0000001201e-1f));
  p = add(add(mul(mul(p, x), x), x), all(1));
  const v128_t octaves = wasm_i32x4_trunc_sat_f32x4(n);
  return mul(p, wasm_i32x4_shl(wasm_i32x4_add(octaves, wasm_i32x4_splat(127)), 23));
}

static v128_t sigmoid(v128_t x) {
  return wasm_f32x4_div(all(1), add(all(1), exponential(wasm_f32x4_neg(x))));
}

/** Softmax of each row [rows][columns], in place. */
void softmax(float* y, int rows, int columns) {
  for (int r = 0; r < rows; r++, y += columns) {
    float top = y[0], sum = 0;
    for (int c = 1; c < columns; c++) top = y[c] > top ? y[c] : top;
    for (int c = 0; c < columns; c += 4) {
      const int count = columns - c;
      store(y + c, exponential(add(load(y + c), all(-top))), count);
      for (int k = c; k < c + 4 && k < columns; k++) sum += y[k];
    }
    for (int c = 0; c < columns; c += 4) store(y + c, mul(load(y + c), all(1 / sum)), columns - c);
  }
}

/** The gates of `cells` GRU cells of `width` units: state [cells][width] from the products of input and state, both
    [cells][3][width], reset, update, new. */
void recur(float* state, const float* given, const float* own, int cells, int width) {
  for (int cell = 0; cell < cells; cell++, state += width, given += 3 * width, own += 3 * width) {
    for (int j = 0; j < width; j += 4) {
      const v128_t before = load(state + j);
      const v128_t reset = sigmoid(add(load(given + j), load(own + j)));
      const v128_t update = sigmoid(add(load(given + width + j), load(own + width + j)));
      const v128_t x = add(load(given + 2 * width + j), mul(reset, load(own + 2 * width + j)));
      const v128_t fresh = add(mul(all(2), sigmoid(mul(all(2), x))), all(-1));  // tanh
      store(state + j, add(fresh, mul(update, wasm_f32x4_sub(before, fresh))), width - j);
    }
  }
}
