package sqlite

import "fmt"

func tableName(id int64) string        { return fmt.Sprintf("t%d", id) }
func indexName(id, index int64) string { return fmt.Sprintf("x%d_%d", id, index) }
func expiryName(id int64) string       { return fmt.Sprintf("e%d", id) }
