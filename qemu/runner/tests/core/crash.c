/* Four threads, each with its own numbers in the FPU's registers, of which the first writes where no memory is: two compute without a
 * system call, one sleeps. What gdb is to find in the core file stands in `main.rs`. With -DAVX=1 the numbers reach into YMM's upper
 * halves. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>

#define THREADS 4

static volatile int started;
static int never;

/* A thread's numbers: `number` in R12, number + 0.5 on top of x87's stack, number * 0x1111.. in XMM3 and YMM9. Then it computes, sleeps
 * or faults, without another instruction that touches them. */
static void hold(long number, long what)
{
	const double half = number + 0.5;
	const uint64_t pattern[4] = {
		number * 0x1111111111111111u,
		~(number * 0x1111111111111111u),
		number * 0x0101010101010101u,
		number ^ 0x0123456789abcdefu,
	};
	__asm__ volatile(
		"fldl %[half]\n\t"
		"movups %[pattern], %%xmm3\n\t"
#if AVX
		"vmovups %[pattern], %%ymm9\n\t"
#endif
		"mov %[number], %%r12\n\t"
		"lock incl %[started]\n\t"
		"1: cmpl %[all], %[started]\n\t"
		"jl 1b\n\t"
		"cmp $1, %[what]\n\t"
		"jl 3f\n\t"
		"je 2f\n\t"
		/* To be sure that the others are in their loop and asleep. */
		"mov $300000000, %%rcx\n\t"
		"4: dec %%rcx\n\t"
		"jnz 4b\n\t"
		"movl $1, 8\n\t"
		"2: mov %[futex], %%eax\n\t"
		"lea %[never], %%rdi\n\t"
		"xor %%esi, %%esi\n\t"
		"xor %%edx, %%edx\n\t"
		"xor %%r10d, %%r10d\n\t"
		"syscall\n\t"
		"jmp 2b\n\t"
		"3: jmp 3b\n\t"
		:
		: [half] "m"(half), [pattern] "m"(pattern), [number] "r"(number), [started] "m"(started),
		  [all] "i"(THREADS), [what] "r"(what), [never] "m"(never), [futex] "i"(SYS_futex)
		: "rax", "rcx", "rdx", "rsi", "rdi", "r10", "r11", "r12", "memory");
}

static void *compute(void *number)
{
	hold((long)number, 0);
	return 0;
}

static void *sleep_for_ever(void *number)
{
	hold((long)number, 1);
	return 0;
}

int main(void)
{
	pthread_t thread;
	pthread_create(&thread, 0, compute, (void *)1);
	pthread_create(&thread, 0, compute, (void *)2);
	pthread_create(&thread, 0, sleep_for_ever, (void *)3);
	hold(4, 2);
	return 0;
}
