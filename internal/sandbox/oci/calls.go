package oci

// Calls is a filter of system calls as the runtime specification has it: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
type Calls struct {
	Default string `json:"defaultAction"`
	Errno   uint   `json:"defaultErrnoRet"`
	Rules   []Rule `json:"syscalls"`
}

// Rule says what becomes of some calls.
type Rule struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
	Errno  *uint    `json:"errnoRet,omitempty"`
	Args   []Match  `json:"args,omitempty"`
}

// Match compares an argument.
type Match struct {
	Index uint   `json:"index"`
	Value uint64 `json:"value"`
	Two   uint64 `json:"valueTwo,omitempty"`
	Op    string `json:"op"`
}
