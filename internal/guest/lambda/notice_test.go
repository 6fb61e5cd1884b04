package lambda

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

var _ guest.Notifier = (*Protocol)(nil)

func TestNotice_IsWhatAWSDocuments(t *testing.T) {
	t.Parallel()
	all := Batches()
	fifo := *all["sns-bare"]
	fifo.Source, fifo.Items = "news.fifo", []invocation.Item{{Event: occurred(idB, "note", "bare"), Sequence: "00000000000000004096", Group: "g", Dedup: "d"}}
	for name, b := range map[string]*invocation.Batch{"full": all["sns"], "bare": all["sns-bare"], "fifo": &fifo} {
		got := (&Protocol{}).Notice([]byte("kept"), batchUnit(), b)
		if !strings.HasPrefix(string(got), "kept") || !json.Valid(got[4:]) {
			t.Fatalf("%s", got)
		}
		goldenAt(t, filepath.Join("testdata", "notice", name+".json"), got[4:])
	}
}

func TestNoticeHeader_NamesTopicAndMessage(t *testing.T) {
	t.Parallel()
	b := Batches()["sns"]
	h := (&Protocol{}).NoticeHeader(batchUnit(), b, true)
	topic := "arn:aws:sns:eu-central-1:123456789012:news"
	if h["X-Amz-Sns-Topic-Arn"] != topic || h["X-Amz-Sns-Subscription-Arn"] != topic+":"+b.Label || h["X-Amz-Sns-Message-Id"] != idA || h["X-Amz-Sns-Rawdelivery"] != "true" {
		t.Errorf("%v", h)
	}
	if _, raw := (&Protocol{}).NoticeHeader(batchUnit(), b, false)["X-Amz-Sns-Rawdelivery"]; raw {
		t.Error("a whole notification says that it is raw")
	}
}

func TestDeadLetter_SaysWhatWasWrong(t *testing.T) {
	t.Parallel()
	p := &Protocol{}
	for code, want := range map[errs.Code]string{errs.Failed: "200", errs.Timeout: "200", errs.Throttled: "429", errs.NotFound: "404", errs.Unavailable: "503"} {
		got := p.DeadLetter(guest.Ending{Invocation: "i", Code: code, Error: strings.Repeat("é", 600)})
		if got["RequestID"].Text != "i" || got["ErrorCode"].Text != want || got["ErrorCode"].Type != "Number" || len(got["ErrorMessage"].Text) != 1024 {
			t.Errorf("%s: %v", code, got)
		}
	}
	if got := p.DeadLetter(guest.Ending{Error: "x" + strings.Repeat("é", 600)}); len(got["ErrorMessage"].Text) != 1023 || p.DeadLetter(guest.Ending{})["ErrorMessage"].Text == "" {
		t.Errorf("%v", got)
	}
	for name, row := range map[string]struct {
		e           guest.Ending
		code, spent string
		retries     string
	}{
		"expired": {guest.Ending{Code: errs.Throttled, Expired: true, Attempts: 1}, "THROTTLING", "MaximumEventAgeInSeconds", "0"},
		"spent":   {guest.Ending{Code: errs.Failed, Spent: true, Attempts: 4}, "SDK_CLIENT_ERROR", "MaximumRetryAttempts", "3"},
		"refused": {guest.Ending{Code: errs.NotFound, Attempts: 1}, "RESOURCE_NOT_FOUND", "", "0"},
	} {
		got := p.RuleDeadLetter("r", "t", row.e)
		if got["RULE_ARN"].Text != "r" || got["TARGET_ARN"].Text != "t" || got["ERROR_CODE"].Text != row.code || got["EXHAUSTED_RETRY_CONDITION"].Text != row.spent || got["RETRY_ATTEMPTS"].Text != row.retries {
			t.Errorf("%s: %v", name, got)
		}
	}
}
