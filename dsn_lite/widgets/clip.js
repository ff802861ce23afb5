// A clip and what the engine makes of it, at any setting of its gates.

/** Shuffled frames of gate vectors [frame * K + gate]: as many multiplications, at moments that nobody chose. */
function shuffled(gates, lanes) {
  const frames = gates.length / lanes, out = new Uint8Array(gates.length);
  const order = Array.from({ length: frames }, (_, t) => t);
  let seed = 1;
  for (let t = frames - 1; t > 0; t--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; // the same every time, so that nothing changes by itself
    const other = Math.floor((seed / 2 ** 32) * (t + 1));
    [order[t], order[other]] = [order[other], order[t]];
  }
  order.forEach((from, to) => out.set(gates.subarray(from * lanes, (from + 1) * lanes), to * lanes));
  return out;
}

/** Shift of the margins for a wanted share of the refinement, from the network's calibration; null is as trained. */
function shiftFor(budget, calibration) {
  if (budget === null) return 0;
  if (budget <= 0 || budget >= 1) return budget <= 0 ? -Infinity : Infinity;
  if (!calibration.length) return Math.log(budget / (1 - budget));
  const after = calibration.findIndex(({ activation }) => activation >= budget);
  if (after <= 0) return calibration.at(after).shift;
  const [one, two] = calibration.slice(after - 1, after + 1);
  return one.shift + ((budget - one.activation) / (two.activation - one.activation)) * (two.shift - one.shift);
}

/** Share of the refinement that is spent as trained, read from the calibration the other way round. */
function trainedShare(calibration) {
  const after = calibration.findIndex(({ shift }) => shift >= 0);
  if (after <= 0) return calibration.at(after)?.activation ?? 0.5;
  const [one, two] = calibration.slice(after - 1, after + 1);
  return one.activation - (one.shift / (two.shift - one.shift)) * (two.activation - one.activation);
}

/** Runs an engine over whole clips, a slice at a time, so that the page stays awake. */
class Workshop {
  constructor(engine) { this.engine = engine; this.ticket = 0; }

  /** What the engine makes of samples [n]: {wave, gates [T * K], costs [T], frames}; null if asked for another meanwhile. */
  async run(samples, policy, shift) {
    const mine = ++this.ticket, { engine } = this, { hop } = engine, lanes = engine.gates.length;
    const learned = () => policies.learned(shift);
    let decide = policy === "learned" ? learned() : policy === "random" ? null : policies[policy]();
    if (!decide) { // what the policy would have opened, at other moments
      const asked = await this.pass(samples, learned(), mine);
      if (!asked) return null;
      decide = policies.given(shuffled(asked.gates, lanes));
    }
    return this.pass(samples, decide, mine);
  }
  async pass(samples, decide, mine) {
    const { engine } = this, { hop } = engine, lanes = engine.gates.length;
    const frames = Math.ceil(samples.length / hop) + 1, block = new Float32Array(hop);
    const result = { frames, wave: new Float32Array(frames * hop), gates: new Uint8Array(frames * lanes),
      costs: new Float32Array(frames) };
    engine.reset();
    let pause = performance.now() + 25;
    for (let t = 0; t < frames; t++) {
      const part = samples.subarray(t * hop, (t + 1) * hop);
      // Behind the end it goes on with the running mean: zeros would be a step.
      block.fill(engine.mean ?? 0); block.set(part);
      const out = engine.frame(block, decide);
      if (t) result.wave.set(out, (t - 1) * hop); // a frame completes the hop before its own
      result.gates.set(engine.gates, t * lanes);
      result.costs[t] = engine.cost(engine.gates);
      if (performance.now() > pause) {
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== this.ticket) return null;
        pause = performance.now() + 25;
      }
    }
    return { ...result, wave: result.wave.subarray(0, samples.length) };
  }
}
