package sandboxtest

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// report is what an attack says of itself, on descriptor 3.
type report struct {
	mu sync.Mutex
	to *os.File
}

func (r *report) say(kind, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " / ")
	_, err := r.to.WriteString(kind + " " + text + "\n")
	must(err)
}

// refused notes an attempt that is to fail, with how it did.
func (r *report) refused(err error, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.say("tried", "%s: %v", what, err)
	if err == nil {
		r.say("broke", "%s", what)
	}
}

// holds notes an attempt that is to be in vain.
func (r *report) holds(ok bool, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	r.say("tried", "%s", what)
	if !ok {
		r.say("broke", "%s", what)
	}
}

func (r *report) note(key string, value any) { r.say("note", "%s %v", key, value) }

// beAttack runs an attack, says that it has come to its end, and stays, so that others can look at what it leaves.
func beAttack(token, name string, args []string) {
	run, ok := attacks()[name]
	if !ok {
		panic("unknown attack " + name)
	}
	r := &report{to: line()}
	run(r, token, args)
	r.say("end", "")
	sleep()
}

// veiled hides a secret in an attack's arguments, which are in its own memory and /proc; unveiled finds it again.
func veiled(s string) string { return hex.EncodeToString([]byte(s)) }

func unveiled(s string) string {
	b, err := hex.DecodeString(s)
	must(err)
	return string(b)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	must(err)
	return n
}

// home is where a guest may write.
func home() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/tmp"
}
