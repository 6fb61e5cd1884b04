package lambda_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func pythonUnit(t testing.TB, handler string, files map[string]string) *guest.Unit {
	t.Helper()
	u := unit("python3.11", handler, write(t, files))
	u.Interpreter = interpreter(t, "EBB_TEST_PYTHON", "python3")
	return u
}
