package identity

import (
	"encoding/base32"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// Role says what the holder of a key may do.
type Role string

// The roles, each with more than the one before; invoke and read stand beside each other.
const (
	Read   Role = "read"   // sees what is deployed, its history, logs and metrics
	Invoke Role = "invoke" // calls functions
	Deploy Role = "deploy" // uploads, deploys, rolls back, removes; and all that read and invoke may
	Admin  Role = "admin"  // everything, keys too
)

// Roles lists them.
func Roles() []Role { return []Role{Admin, Deploy, Invoke, Read} }

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	var names []string
	for _, r := range Roles() {
		if string(r) == s {
			return r, nil
		}
		names = append(names, string(r))
	}
	e := errs.New(errs.Invalid, "there is no role %q", s)
	if near := diag.Nearest(s, names); near != "" {
		return "", e.WithHint("Did you mean %s?", near)
	}
	return "", e.WithHint("The roles are %s.", strings.Join(names, ", "))
}

// Operation is one thing that the control API does.
type Operation string

// The operations.
const (
	OpInfo        Operation = "info"
	OpStacks      Operation = "stacks"
	OpHistory     Operation = "history"
	OpLogs        Operation = "logs"
	OpMetrics     Operation = "metrics"
	OpInvoke      Operation = "invoke"
	OpInvocations Operation = "invocations"
	OpPublish     Operation = "publish"
	OpEvents      Operation = "events"
	OpReplay      Operation = "replay"
	OpSubscribe   Operation = "subscribe"
	OpUpload      Operation = "upload"
	OpDeploy      Operation = "deploy"
	OpRollback    Operation = "rollback"
	OpRemove      Operation = "remove"
	OpKeys        Operation = "keys"
	OpBackup      Operation = "backup" // all that the Node keeps, secrets and keys too
	OpExport      Operation = "export" // tables, buckets and parameters
	OpImport      Operation = "import"
	OpAudit       Operation = "audit"
)

// Permissions is the table of operation and role: who is not listed may not, and an operation without a row is nobody's.
func Permissions() map[Operation][]Role {
	return map[Operation][]Role{
		OpInfo:        {Admin, Deploy, Invoke, Read},
		OpStacks:      {Admin, Deploy, Read},
		OpHistory:     {Admin, Deploy, Read},
		OpLogs:        {Admin, Deploy, Read},
		OpMetrics:     {Admin, Deploy, Read},
		OpInvoke:      {Admin, Deploy, Invoke},
		OpInvocations: {Admin, Deploy, Invoke, Read},
		OpPublish:     {Admin, Deploy, Invoke},
		OpEvents:      {Admin, Deploy, Read},
		OpReplay:      {Admin, Deploy},
		OpSubscribe:   {Admin, Deploy},
		OpUpload:      {Admin, Deploy},
		OpDeploy:      {Admin, Deploy},
		OpRollback:    {Admin, Deploy},
		OpRemove:      {Admin, Deploy},
		OpKeys:        {Admin},
		OpBackup:      {Admin},
		OpExport:      {Admin},
		OpImport:      {Admin},
		OpAudit:       {Admin},
	}
}

// Principal is who is calling.
type Principal struct {
	Key  string // the key's ID; empty for the user of the Node's own machine
	Name string
	Role Role
	App  string // the only App it reaches, or empty
}

// Local is the user who can read the data directory.
func Local() Principal { return Principal{Role: Admin} }

// May returns nil where the table lets the Principal do it.
func (p Principal) May(op Operation) error {
	allowed := Permissions()[op]
	if slices.Contains(allowed, p.Role) {
		return nil
	}
	e := errs.New(errs.Forbidden, "key %s (%s) has the role %s, which may not do this (%s)", p.Key, p.Name, p.Role, op)
	if len(allowed) == 0 {
		return e
	}
	names := make([]string, 0, len(allowed))
	for _, r := range allowed {
		names = append(names, string(r))
	}
	return e.WithHint("Use a key with the role %s; an admin makes one with `ebb keys create NAME --role %s`.", strings.Join(names, " or "), names[len(names)-1])
}

// Reaches returns nil where the Principal's key is for the App.
func (p Principal) Reaches(app string) error {
	if p.App == "" || p.App == app {
		return nil
	}
	return errs.New(errs.Forbidden, "key %s (%s) is for app %s only, not for %s", p.Key, p.Name, p.App, app).
		WithHint("Use a key for that app; an admin makes one with `ebb keys create NAME --app %s`.", app)
}
