// What face-api's own code makes of a face chip: the recorded embedding of make_vectors.py.
//
//   npm install @tensorflow/tfjs@4.22.0
//   python -c "from tests.kit.make_vectors import close_picture; open('chip', 'wb').write(close_picture(150).tobytes())"
//   node face_api.cjs starter/state/kit/face-api/package chip EMBEDDING.json
//
// TensorFlow.js's plain JavaScript runs it, in place of the binary that the package asks for.
const fs = require('fs');
const path = require('path');
const util = require('util');
const [folder, chip, out] = process.argv.slice(2);
util.isNullOrUndefined ??= (x) => x === null || x === undefined;

async function main() {
  const code = fs.readFileSync(path.join(folder, 'dist/face-api.node.js'), 'utf8');
  fs.writeFileSync('face-api.tmp.cjs', code.replaceAll('@tensorflow/tfjs-node', '@tensorflow/tfjs'));
  const faceapi = require(path.resolve('face-api.tmp.cjs'));
  const model = path.join(folder, 'model/face_recognition_model');
  const specs = JSON.parse(fs.readFileSync(`${model}-weights_manifest.json`)).flatMap((group) => group.weights);
  const bin = fs.readFileSync(`${model}.bin`);
  const net = new faceapi.FaceRecognitionNet();
  const buffer = bin.buffer.slice(bin.byteOffset, bin.byteOffset + bin.length);
  net.loadFromWeightMap(faceapi.tf.io.decodeWeights(buffer, specs));
  const pixels = faceapi.tf.tensor4d(Float32Array.from(fs.readFileSync(chip)), [1, 150, 150, 3]);
  const found = await net.forward(pixels);
  fs.writeFileSync(out, JSON.stringify(Array.from(await found.data())));
  fs.unlinkSync('face-api.tmp.cjs');
}

main();
