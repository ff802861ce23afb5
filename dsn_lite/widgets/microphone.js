// The reader's microphone and files. Every refusal is one sentence with the way out. Nothing here sends anything anywhere.

const REFUSALS = {
  NotAllowedError: "The microphone was refused: allow it in the address bar and press the button again, or choose a file.",
  NotFoundError: "No microphone was found: plug one in and press the button again, or choose a file.",
  NotReadableError: "The microphone is in use by another program: close that one and press the button again, or choose a file.",
  SecurityError: "This frame may not use the microphone: open the page by itself, or choose a file.",
};
const NO_MICROPHONE = "This browser gives this page no microphone (Safari gives none to pages from disk): choose a file, or " +
  "open the page in Chromium or Firefox, or over https.";

class Refusal extends Error {}

/** A microphone with the engine behind it: `tell` gets its frames, `settings` says what is heard. */
class Microphone {
  constructor(worklet, options, tell) { Object.assign(this, { worklet, options, tell, underruns: 0 }); }

  /** Ask for it and begin; call this where the reader has clicked. Gives what the browser does not switch off, in words. */
  async open(settings) {
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Refusal(NO_MICROPHONE);
    try {
      this.context = new AudioContext({ latencyHint: "interactive" });
      await this.context.suspend(); // until the engine is warm
      const url = `data:text/javascript;base64,${base64(this.worklet)}`; // a blob: URL is refused on pages from disk
      await this.context.audioWorklet.addModule(url);
      this.node = new AudioWorkletNode(this.context, "speak",
        { processorOptions: this.options, numberOfInputs: 1, numberOfOutputs: 1, outputChannelCount: [1] });
      await new Promise((resolve, reject) => {
        this.node.onprocessorerror = () => reject(new Error("the engine did not start"));
        this.node.port.onmessage = ({ data }) => { if (data === "ready") resolve(); };
      });
      const wanted = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
      this.set(settings);
      this.node.port.onmessage = ({ data }) => { this.underruns = data.underruns; this.tell(data.frames); };
      this.context.createMediaStreamSource(this.stream).connect(this.node).connect(this.context.destination);
      await this.context.resume();
    } catch (error) {
      this.close();
      throw new Refusal(REFUSALS[error.name] ??
        `The microphone could not be opened (${error.message}): try again, or choose a file.`);
    }
    const on = this.stream.getAudioTracks()[0].getSettings();
    return [["echoCancellation", "echo cancellation"], ["noiseSuppression", "noise suppression"],
      ["autoGainControl", "gain control"], ["voiceIsolation", "voice isolation"]]
      .filter(([name]) => on[name] && on[name] !== "none").map(([, words]) => words).join(", ");
  }
  set(settings) { this.node?.port.postMessage(settings); }
  /** The microphone's light goes out. */
  close() {
    this.node?.port.postMessage("end");
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}

function base64(text) {
  let letters = "";
  for (const byte of new TextEncoder().encode(text)) letters += String.fromCharCode(byte);
  return btoa(letters);
}

/** Samples at 16 kHz of a file, mixed to one channel, and a word about what was left out. */
async function samplesOf(file, longest = 60) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Refusal(`${file.name} is no sound that this browser can decode: choose a WAV, FLAC, MP3, Ogg or M4A file.`);
  }
  if (buffer.duration < 0.1) throw new Refusal(`${file.name} is shorter than a tenth of a second: choose a longer one.`);
  const samples = new Float32Array(Math.min(buffer.length, longest * RATE)), count = buffer.numberOfChannels;
  for (let c = 0; c < count; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < samples.length; i++) samples[i] += channel[i] / count;
  }
  const cut = buffer.duration > longest ? `Of ${file.name} the first ${longest} seconds are used. ` : "";
  return { samples, cut };
}

/** A WAV file of samples at 16 kHz: 16 bits, one channel. */
function wavOf(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.round(clamp(x, -1, 1) * 32767), true));
  return new Blob([view], { type: "audio/wav" });
}
