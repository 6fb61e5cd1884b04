package config

import (
	"net/url"
	"regexp"
	"strings"
)

// TablesSetting is the name of the setting that says where tables are kept: what several Nodes share is a database beside them.
const TablesSetting = "tables"

// keyword is a password in a connection string of the other form, "host=db password=x", or among the parameters of a URL.
var keyword = regexp.MustCompile(`(?i)(^|[\s?&])password\s*=`)

// hasPassword tells whether a URL or connection string of PostgreSQL holds a password, also one that cannot be read otherwise.
func hasPassword(s string) bool {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		if _, ok := u.User.Password(); ok {
			return true
		}
	} else if err != nil {
		_, rest, _ := strings.Cut(s, "://")
		user, _, at := strings.Cut(rest, "@")
		if at && strings.Contains(user, ":") {
			return true
		}
	}
	return keyword.MatchString(s)
}

// tablesFaults says what is wrong with where tables are kept. No fault shows the URL: it may hold a password.
func (c *Config) tablesFaults(flag string) (faults []string) {
	if c.Tables != "" && c.TablesFile != "" {
		faults = append(faults, "the database of tables comes from one place: give --tables or --tables-file")
	}
	if hasPassword(flag) {
		faults = append(faults, "flag --tables: a password on the command line is shown to every user of this machine; give the URL by --tables-file or EBB_TABLES, or the password by PGPASSFILE")
	}
	if c.Tables != "" && !strings.HasPrefix(c.Tables, "postgres://") && !strings.HasPrefix(c.Tables, "postgresql://") {
		faults = append(faults, "tables: the setting is no URL of the form postgres://USER@HOST:PORT/DATABASE")
	}
	return faults
}
