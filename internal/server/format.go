package server

import (
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/event"
)

// outwardEvent is an event as the world outside may see it: without what the bus has noted on it.
func outwardEvent(e *event.Event) *event.Event {
	out := e.Clone()
	for name := range e.Extensions {
		if strings.HasPrefix(name, "ebb") && name != event.Resources {
			out.SetExtension(name, nil)
		}
	}
	return out
}

// formatted is what the target gets of a delivery, where that is not by the provider's form.
func (t *target) formatted(v *bus.Delivery) (data []byte, ok bool, err error) {
	switch t.Format {
	case "":
		return nil, false, nil
	case api.FormatData:
		return v.Event.Data, true, nil
	case api.FormatBinary:
		if t.Endpoint != "" { // the rest is in the headers
			return v.Event.Data, true, nil
		}
	}
	data, err = outwardEvent(v.Event).MarshalJSON() // the data byte for byte
	return data, true, err
}

// endpointFormat sets in which form an endpoint gets events, and as what content type.
func (t *target) endpointFormat(format string) error {
	switch {
	case t.Input != nil:
		tr, err := t.Input.Compile()
		if err != nil {
			return err
		}
		t.ContentType = "text/plain; charset=utf-8"
		if tr.JSON() {
			t.ContentType = "application/json"
		}
	case format == "":
		t.Format = api.FormatBinary
	case format == api.FormatEventBridge:
		t.ContentType = "application/json"
	case format == api.FormatCloudEvents:
		t.ContentType = event.ContentType
	}
	return nil
}

// head sets the headers that tell an endpoint of the event.
func (t *target) head(h http.Header, v *bus.Delivery) {
	switch t.Format {
	case api.FormatBinary:
		outwardEvent(v.Event).WriteBinary(h)
	case api.FormatData:
		kind := v.Event.DataContentType
		if kind == "" {
			kind = "application/json" // what absence means: CloudEvents, "datacontenttype"
		}
		h.Set("Content-Type", kind)
	}
}
