package wire

// BodiesHeld is how many bytes of bodies are held now.
func (h *Handler) BodiesHeld() int64 {
	h.bodies.mu.Lock()
	defer h.bodies.mu.Unlock()
	return h.bodies.mu.used
}
