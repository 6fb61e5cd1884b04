//go:build linux

#include "textflag.h"

// The program that image describes; see helper.go for what it does. It is copied out of here into a file of its own, so it refers to
// nothing outside of itself, and is never called in this process.
//
// R12 points to the current step. The kernel starts programs with zero in all registers; who calls this one gives an address. It keeps what
// belongs to the caller in the 128 bytes below the stack that the ABI leaves to a function which calls none.

#define BASE $0x20000000
#define SIZE $0x100000
#define STEP $72
#define CONTROL $5

// func image()
TEXT ·image(SB), NOSPLIT|NOFRAME, $0-0
	TESTQ DI, DI
	JNE  called
	MOVQ $9, AX // mmap
	MOVQ BASE, DI
	MOVQ SIZE, SI
	MOVQ $3, DX // PROT_READ|PROT_WRITE
	MOVQ $0x12, R10 // MAP_PRIVATE|MAP_FIXED
	MOVQ $4, R8 // the list's descriptor
	MOVQ $0, R9
	SYSCALL
	MOVQ BASE, R12
	CMPQ AX, R12
	JNE  die

step:
	MOVQ 0(R12), AX
	CMPQ AX, $-1
	JEQ  branch
	CMPQ AX, $-2
	JEQ  serve
	CMPQ AX, $-3
	JEQ  copy
	CMPQ AX, $-4
	JEQ  copy32
	CMPQ AX, $-5
	JEQ  return
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	MOVQ AX, 64(R12)
	CMPQ AX, $-4095
	JCS  next // unsigned: no error
	MOVQ 56(R12), BX
	TESTQ $1, BX
	JNE  next
	MOVQ $1, AX // write
	MOVQ CONTROL, DI
	MOVQ R12, SI
	MOVQ STEP, DX
	SYSCALL

die:
	MOVQ $231, AX // exit_group
	MOVQ $111, DI
	SYSCALL

next:
	ADDQ STEP, R12
	JMP  step

branch:
	MOVQ 8(R12), BX
	MOVQ 0(BX), BX
	TESTQ BX, BX
	JNE  next
	MOVQ 16(R12), R12
	JMP  step

copy:
	MOVQ 16(R12), BX
	MOVQ 0(BX), DX
	MOVQ 8(R12), BX
	MOVQ DX, 0(BX)
	JMP  next

copy32:
	MOVQ 16(R12), BX
	MOVL 0(BX), DX
	MOVQ 8(R12), BX
	MOVL DX, 0(BX)
	JMP  next

called:
	MOVQ BX, -16(SP)
	MOVQ R12, -24(SP)
	MOVQ DI, R12
	JMP  step

return:
	MOVQ 8(R12), AX
	MOVQ -16(SP), BX
	MOVQ -24(SP), R12
	RET

serve:
	MOVQ $128, AX // rt_sigtimedwait
	MOVQ 16(R12), DI
	MOVQ $0, SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $15 // SIGTERM
	JEQ  term

reap:
	MOVQ $61, AX // wait4
	MOVQ $-1, DI
	MOVQ 24(R12), SI
	MOVQ $1, DX // WNOHANG
	MOVQ $0, R10
	SYSCALL
	CMPQ AX, $0
	JLE  serve
	CMPQ AX, 8(R12)
	JNE  reap
	MOVQ $1, AX // write
	MOVQ CONTROL, DI
	MOVQ 24(R12), SI
	MOVQ $4, DX
	SYSCALL
	MOVQ $231, AX // exit_group
	MOVQ $0, DI
	SYSCALL

term: // process 1 of a namespace alone may signal everybody
	MOVQ $39, AX // getpid
	SYSCALL
	CMPQ AX, $1
	JNE  serve
	MOVQ $62, AX // kill
	MOVQ $-1, DI
	MOVQ $15, SI
	SYSCALL
	JMP  serve

	LONG $0x0BBE0BBE // the end, see imageEnd
	LONG $0x0BBE0BBE

// func imageAddr() *byte
TEXT ·imageAddr(SB), NOSPLIT, $0-8
	LEAQ ·image(SB), AX
	MOVQ AX, ret+0(FP)
	RET
