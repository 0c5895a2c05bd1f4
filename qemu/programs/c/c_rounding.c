/* setjmp and longjmp between functions with rounding modes of their own: musl's keep none of the FPU's, so the modes stay as they are
 * set last, and both control words have them: MXCSR for double, the x87's for long double. */

#include <fenv.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	int mode;
	const char *name;
} modes[] = {
	{FE_TONEAREST, "nearest"},
	{FE_UPWARD, "up"},
	{FE_DOWNWARD, "down"},
	{FE_TOWARDZERO, "zero"},
};

static jmp_buf back;

/* Nothing of it is computed by the compiler. */
static volatile double one = 1.0, three = 3.0, ten = 10.0;
static volatile long double wide_one = 1.0L, wide_three = 3.0L;

static double series(int n)
{
	double sum = 0.0;
	for (int i = 1; i <= n; i++)
		sum += one / (i * three) - one / (i * ten);
	return sum;
}

static __attribute__((noinline)) void deep(int depth, int mode)
{
	volatile double kept = series(depth + 1);
	if (depth > 0)
		deep(depth - 1, mode);
	if (kept > 1e300)
		return; /* never */
	fesetround(modes[mode].mode);
	longjmp(back, mode + 1);
}

static void show(const char *when, const char *name)
{
	double third = one / three, negative = -one / three;
	long double wide = wide_one / wide_three;
	printf("%s %s: %a %a %La, series %a\n", when, name, third, negative, wide, series(500));
}

int main(void)
{
	for (volatile int round = 0; round < 8; round++) {
		int came = setjmp(back);
		if (came == 0)
			deep(20 + round, round % 4);
		if (fegetround() != modes[came - 1].mode) {
			printf("expected the mode that was set before the jump\n");
			return 1;
		}
		show("after a jump,", modes[came - 1].name);
	}
	fenv_t kept;
	fegetenv(&kept);
	fesetround(FE_UPWARD);
	feclearexcept(FE_ALL_EXCEPT);
	volatile double inexact = one / three;
	printf("flags: %x after %a\n", fetestexcept(FE_ALL_EXCEPT), inexact);
	volatile double zero = 0.0, infinite = one / zero;
	printf("flags: %x after %a\n", fetestexcept(FE_ALL_EXCEPT), infinite);
	fesetenv(&kept);
	show("the environment of before,", "zero");
	fesetenv(FE_DFL_ENV);
	show("the first environment,", "nearest");
	for (int i = 0; i < 4; i++) {
		fesetround(modes[i].mode);
		printf("%s: %.3f %.3f %.0f %.0f %.20Lf\n", modes[i].name, 2.0005, -2.0005, 2.5, 3.5, wide_one / wide_three);
	}
	return 0;
}
