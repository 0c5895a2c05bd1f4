/* The LINPACK problem (J. J. Dongarra and others, "LINPACK Users' Guide", 1979): a dense system, factored with partial pivoting by
 * columns and solved, in double and in long double, and how far off the solution is. Written anew; no time is taken. */

#include <float.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t seed;

/* Between -2 and 2, a power of two in its denominator. */
static double element(void)
{
	seed = seed * 3125u % 65536u;
	return ((double)seed - 32768.0) / 16384.0;
}

#define LINPACK(real, name, epsilon, format)                                                           \
	static real magnitude_##name(real x) { return x < 0 ? -x : x; }                                \
                                                                                                       \
	static void add_##name(int n, real factor, const real *from, real *to)                         \
	{                                                                                              \
		for (int i = 0; i < n; i++)                                                            \
			to[i] += factor * from[i];                                                     \
	}                                                                                              \
                                                                                                       \
	static void factor_##name(int n, real *a, int *pivots)                                         \
	{                                                                                              \
		for (int k = 0; k < n - 1; k++) {                                                      \
			real *column = a + k * n;                                                      \
			int p = k;                                                                     \
			for (int i = k + 1; i < n; i++)                                                \
				if (magnitude_##name(column[i]) > magnitude_##name(column[p]))         \
					p = i;                                                         \
			pivots[k] = p;                                                                 \
			real pivot = column[p];                                                        \
			column[p] = column[k];                                                         \
			column[k] = pivot;                                                             \
			for (int i = k + 1; i < n; i++)                                                \
				column[i] /= -pivot;                                                   \
			for (int j = k + 1; j < n; j++) {                                              \
				real *other = a + j * n, head = other[p];                              \
				other[p] = other[k];                                                   \
				other[k] = head;                                                       \
				add_##name(n - k - 1, head, column + k + 1, other + k + 1);            \
			}                                                                              \
		}                                                                                      \
	}                                                                                              \
                                                                                                       \
	static void solve_##name(int n, const real *a, const int *pivots, real *b)                     \
	{                                                                                              \
		for (int k = 0; k < n - 1; k++) {                                                      \
			real head = b[pivots[k]];                                                      \
			b[pivots[k]] = b[k];                                                           \
			b[k] = head;                                                                   \
			add_##name(n - k - 1, head, a + k * n + k + 1, b + k + 1);                     \
		}                                                                                      \
		for (int k = n - 1; k >= 0; k--) {                                                     \
			b[k] /= a[k * n + k];                                                          \
			add_##name(k, -b[k], a + k * n, b);                                            \
		}                                                                                      \
	}                                                                                              \
                                                                                                       \
	static void run_##name(int n)                                                                  \
	{                                                                                              \
		real *a = malloc(sizeof *a * n * n), *kept = malloc(sizeof *kept * n * n);             \
		real *b = malloc(sizeof *b * n), *right = malloc(sizeof *right * n);                   \
		int *pivots = malloc(sizeof *pivots * n);                                              \
		if (!a || !kept || !b || !right || !pivots) {                                          \
			printf("expected memory for %d unknowns, saw none\n", n);                      \
			exit(1);                                                                       \
		}                                                                                      \
		seed = 1325;                                                                           \
		real norm = 0;                                                                         \
		for (int i = 0; i < n; i++)                                                            \
			b[i] = 0;                                                                      \
		for (int j = 0; j < n; j++)                                                            \
			for (int i = 0; i < n; i++) {                                                  \
				real x = element();                                                    \
				a[j * n + i] = kept[j * n + i] = x;                                    \
				b[i] += x;                                                             \
				if (magnitude_##name(x) > norm)                                        \
					norm = magnitude_##name(x);                                    \
			}                                                                              \
		for (int i = 0; i < n; i++)                                                            \
			right[i] = -b[i];                                                              \
		factor_##name(n, a, pivots);                                                           \
		solve_##name(n, a, pivots, b);                                                         \
		real residual = 0, largest = 0;                                                        \
		for (int j = 0; j < n; j++)                                                            \
			add_##name(n, b[j], kept + j * n, right);                                      \
		for (int i = 0; i < n; i++) {                                                          \
			if (magnitude_##name(right[i]) > residual)                                     \
				residual = magnitude_##name(right[i]);                                 \
			if (magnitude_##name(b[i]) > largest)                                          \
				largest = magnitude_##name(b[i]);                                      \
		}                                                                                      \
		printf("%-11s n %3d: normalised residual " format ", residual " format ", x[0]-1 " format \
		       ", x[n-1]-1 " format "\n",                                                      \
		       #real, n, residual / (n * norm * largest * epsilon), residual, b[0] - 1,        \
		       b[n - 1] - 1);                                                                  \
		free(a);                                                                               \
		free(kept);                                                                            \
		free(b);                                                                               \
		free(right);                                                                           \
		free(pivots);                                                                          \
	}

typedef long double long_double;

LINPACK(double, double, DBL_EPSILON, "%.17g")
LINPACK(long_double, long_double, LDBL_EPSILON, "%.21Lg")

int main(void)
{
	static const int sizes[] = {1, 2, 10, 50, 100, 130};
	for (int i = 0; i < 6; i++) {
		run_double(sizes[i]);
		run_long_double(sizes[i]);
	}
	return 0;
}
