package dynamodb_test

import (
	"strings"
	"testing"
)

func TestStatements_DoWhatTheySay(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	for _, x := range []struct{ statement, params, want string }{
		{`INSERT INTO \"things\" VALUE {'h': 'a', 'r': 1, 'x': ?, 'l': [1, 'two', {'k': true}], 's': <<'p', 'q'>>}`, `,"Parameters":[{"N":"5"}]`, `{"Items":[]}`},
		{`INSERT INTO things VALUE {'h': 'a', 'r': 2, 'x': 7, 'g': 'it''s'}`, ``, `{"Items":[]}`},
		{`INSERT INTO things VALUE {'h': 'a', 'r': 2}`, ``, `DuplicateItemException`},
		{`SELECT x, l[2].k FROM \"things\" WHERE h = 'a' AND r = 1`, ``, `{"Items":[{"l":{"L":[{"M":{"k":{"BOOL":true}}}]},"x":{"N":"5"}}]}`},
		{`SELECT r FROM things WHERE h = ? AND r BETWEEN 1 AND 9 ORDER BY r DESC`, `,"Parameters":[{"S":"a"}]`, `{"Items":[{"r":{"N":"2"}},{"r":{"N":"1"}}]}`},
		{`SELECT r FROM things.\"global\" WHERE g = 'it''s'`, ``, `{"Items":[{"r":{"N":"2"}}]}`},
		{`SELECT r FROM things WHERE x > 5 AND l IS MISSING`, ``, `{"Items":[{"r":{"N":"2"}}]}`},
		{`SELECT r FROM things WHERE h = 'a' AND x IN [5, 6] AND contains(s, 'p')`, ``, `{"Items":[{"r":{"N":"1"}}]}`},
		{`UPDATE things SET x = x + 1 SET y = 'new' REMOVE g WHERE h = 'a' AND r = 2 RETURNING MODIFIED NEW *`, ``, `{"Items":[{"x":{"N":"8"},"y":{"S":"new"}}]}`},
		{`UPDATE things SET x = 1 WHERE h = 'a' AND r = 99`, ``, `ConditionalCheckFailedException`},
		{`UPDATE things SET x = 1 WHERE h = 'a'`, ``, `Where clause does not contain a mandatory equality on all key attributes`},
		{`DELETE FROM things WHERE h = 'a' AND r = 2 AND x = 1`, ``, `ConditionalCheckFailedException`},
		{`DELETE FROM things WHERE h = 'a' AND r = 2 RETURNING ALL OLD *`, ``, `{"Items":[{"h":{"S":"a"},"r":{"N":"2"},"x":{"N":"8"},"y":{"S":"new"}}]}`},
		{`DELETE FROM things WHERE h = 'a' AND r = 2`, ``, `{"Items":[]}`},
		{`SELECT * FROM things WHERE h = ?`, ``, `Number of parameters in request and statement don't match.`},
		{`DROP TABLE things`, ``, `Statement wasn't well formed`},
		{`SELECT * FROM things WHERE h = 'a`, ``, `Statement wasn't well formed`},
	} {
		if _, answer := c.call("ExecuteStatement", `{"Statement":"`+x.statement+`"`+x.params+`}`); !strings.Contains(answer, x.want) {
			t.Errorf("%s: %s, want %s", x.statement, answer, x.want)
		}
	}
	batch := c.ok("BatchExecuteStatement", `{"Statements":[{"Statement":"SELECT x FROM things WHERE h = 'a' AND r = 1"},{"Statement":"INSERT INTO things VALUE {'h':'a','r':1}"}]}`)
	if batch != `{"Responses":[{"TableName":"things","Item":{"x":{"N":"5"}}},{"Error":{"Code":"DuplicateItem","Message":"Duplicate primary key exists in table"},"TableName":"things"}]}` {
		t.Error(batch)
	}
	if _, answer := c.call("ExecuteTransaction", `{"TransactStatements":[{"Statement":"INSERT INTO things VALUE {'h':'n','r':1}"},{"Statement":"UPDATE things SET x = 1 WHERE h = 'none' AND r = 1"}]}`); !strings.Contains(answer, "[None, ConditionalCheckFailed]") {
		t.Error(answer)
	}
	if got := c.ok("ExecuteStatement", `{"Statement":"SELECT * FROM things WHERE h = 'n'"}`); got != `{"Items":[]}` {
		t.Errorf("a part of a transaction that was cancelled is there: %s", got)
	}
}
