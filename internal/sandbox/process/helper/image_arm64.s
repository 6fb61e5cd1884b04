//go:build linux

#include "textflag.h"

// The program that image describes; see helper.go for what it does. It is copied out of here into a file of its own, so it refers to
// nothing outside of itself, and is never called in this process.
//
// R19 points to the current step. The kernel starts programs with zero in all registers; who calls this one gives an address, and finds its
// own registers again.

#define BASE $0x20000000
#define SIZE $0x100000
#define STEP $72
#define CONTROL $5

// func image()
TEXT ·image(SB), NOSPLIT|NOFRAME, $0-0
	CBNZ R0, called
	MOVD $222, R8 // mmap
	MOVD BASE, R0
	MOVD SIZE, R1
	MOVD $3, R2 // PROT_READ|PROT_WRITE
	MOVD $0x12, R3 // MAP_PRIVATE|MAP_FIXED
	MOVD $4, R4 // the list's descriptor
	MOVD $0, R5
	SVC
	MOVD BASE, R19
	CMP  R19, R0
	BNE  die

step:
	MOVD 0(R19), R8
	CMN  $1, R8
	BEQ  branch
	CMN  $2, R8
	BEQ  serve
	CMN  $3, R8
	BEQ  copy
	CMN  $4, R8
	BEQ  copy32
	CMN  $5, R8
	BEQ  return
	MOVD 8(R19), R0
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD 40(R19), R4
	MOVD 48(R19), R5
	SVC
	MOVD R0, 64(R19)
	CMN  $4095, R0
	BLO  next // unsigned: no error
	MOVD 56(R19), R9
	TBNZ $0, R9, next
	MOVD $64, R8 // write
	MOVD CONTROL, R0
	MOVD R19, R1
	MOVD STEP, R2
	SVC

die:
	MOVD $94, R8 // exit_group
	MOVD $111, R0
	SVC

next:
	ADD  STEP, R19
	B    step

branch:
	MOVD 8(R19), R9
	MOVD 0(R9), R9
	CBNZ R9, next
	MOVD 16(R19), R19
	B    step

copy:
	MOVD 16(R19), R9
	MOVD 0(R9), R10
	MOVD 8(R19), R9
	MOVD R10, 0(R9)
	B    next

copy32:
	MOVD 16(R19), R9
	MOVWU 0(R9), R10
	MOVD 8(R19), R9
	MOVW R10, 0(R9)
	B    next

called:
	SUB  $16, RSP
	MOVD R19, 0(RSP)
	MOVD R0, R19
	B    step

return:
	MOVD 8(R19), R0
	MOVD 0(RSP), R19
	ADD  $16, RSP
	RET

serve:
	MOVD $137, R8 // rt_sigtimedwait
	MOVD 16(R19), R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $8, R3
	SVC
	CMP  $15, R0 // SIGTERM
	BEQ  term

reap:
	MOVD $260, R8 // wait4
	MOVD $-1, R0
	MOVD 24(R19), R1
	MOVD $1, R2 // WNOHANG
	MOVD $0, R3
	SVC
	CMP  $0, R0
	BLE  serve
	MOVD 8(R19), R9
	CMP  R9, R0
	BNE  reap
	MOVD $64, R8 // write
	MOVD CONTROL, R0
	MOVD 24(R19), R1
	MOVD $4, R2
	SVC
	MOVD $94, R8 // exit_group
	MOVD $0, R0
	SVC

term: // process 1 of a namespace alone may signal everybody
	MOVD $172, R8 // getpid
	SVC
	CMP  $1, R0
	BNE  serve
	MOVD $129, R8 // kill
	MOVD $-1, R0
	MOVD $15, R1
	SVC
	B    serve

	WORD $0x0BBE0BBE // the end, see imageEnd
	WORD $0x0BBE0BBE

// func imageAddr() *byte
TEXT ·imageAddr(SB), NOSPLIT, $0-8
	MOVD $·image(SB), R0
	MOVD R0, ret+0(FP)
	RET
