/* Long double: sums, products and square roots in the x87's registers, and printf's exact decimals of them. */

#include <float.h>
#include <math.h>
#include <stdio.h>

/* e by its series, from the small end. */
static long double euler(int terms)
{
	long double sum = 0.0L;
	for (int n = terms; n > 0; n--)
		sum = (sum + 1.0L) / n;
	return sum + 1.0L;
}

/* Pi by Machin's formula, 16 atan(1/5) - 4 atan(1/239). */
static long double atan_inverse(int x)
{
	long double power = 1.0L / x, sum = power;
	for (int n = 3; n < 80; n += 2) {
		power /= -(long double)x * x;
		sum += power / n;
	}
	return sum;
}

/* The agm of 1 and sqrt(1/2): multiplication and square root. */
static long double agm(int steps)
{
	long double a = 1.0L, g = sqrtl(0.5L);
	while (steps-- > 0) {
		long double mean = (a + g) / 2;
		g = sqrtl(a * g);
		a = mean;
	}
	return a;
}

int main(void)
{
	for (int terms = 5; terms <= 25; terms += 5)
		printf("e, %2d terms: %.21Lf %La\n", terms, euler(terms), euler(terms));
	long double pi = 16 * atan_inverse(5) - 4 * atan_inverse(239);
	printf("pi: %.30Lf %La\n", pi, pi);
	for (int steps = 0; steps < 6; steps++)
		printf("agm, %d steps: %.25Lg\n", steps, agm(steps));

	/* Many roundings, each of which shows in the last digits. */
	long double x = 0.1L, sum = 0.0L;
	for (int round = 0; round < 200000; round++) {
		x = x * (1.0L - x) * 3.875L;
		sum += x;
		if (round % 20000 == 0)
			printf("%6d: %.21Le %.21Le\n", round, x, sum);
	}
	printf("extremes: %Lg %Lg %Lg %.36Lg\n", LDBL_MAX, LDBL_MIN, LDBL_TRUE_MIN, LDBL_EPSILON);
	printf("exact: %.70Lf\n", 1.0L / (1LL << 60));
	return 0;
}
